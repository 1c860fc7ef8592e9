"""What Kohya's trainer calls a network: the module, its `--network_args`, and the layers that they take hold of."""

from __future__ import annotations

import math
from typing import Any

from ... import methods
from ...config import TrainConfig
from ...errors import MaquetteError
from ...trainers.kohya import neutral

SAME = {  # of one meaning inside --network_args
    "rank_dropout": "rank_dropout",
    "module_dropout": "module_dropout",
    "lora_plus_ratio": "loraplus_lr_ratio",
    "rank_stabilized": "rs_lora",
}
_ATTENTION, _CONV = {"attention", "feed_forward"}, {"conv"}
# LyCORIS' names for groups of layers; networks.lora knows the first two, the second with conv_dim.
PRESETS: dict[str, set[str]] = {
    "attn-mlp": _ATTENTION,
    "full": _ATTENTION | _CONV,
    "attn-only": {"self_attention", "cross_attention"},
    "unet-convblock-only": _CONV,
    "unet-only": _ATTENTION | _CONV,
    "unet-transformer-only": _ATTENTION,
}
_WITHOUT_TEXT = ("unet-convblock-only", "unet-only", "unet-transformer-only")
_WIDER = {  # what they also train there
    "full": "conv_in, conv_out and the time embedding",
    "unet-only": "conv_in, conv_out and the time embedding",
    "unet-convblock-only": "conv_in and conv_out",
}


def module(config: TrainConfig) -> str:
    """networks.lora for what it can do, else lycoris.kohya."""
    native = methods.METHODS[config.method].network_module
    return "lycoris.kohya" if config.rank_stabilized else native


def groups(config: TrainConfig) -> set[str]:
    """The groups of UNet layers that are adapted."""
    return set(config.layers or methods.METHODS[config.method].layers)


def write(config: TrainConfig, xl: bool) -> tuple[dict[str, str], list[str]]:
    """The arguments of `module(config)`, and what they do not express: keys with the reason."""
    lycoris, layers = module(config) == "lycoris.kohya", groups(config)
    made: dict[str, Any] = {}
    lost: list[str] = []
    if lycoris:
        made["algo"] = config.method if config.method in ("loha", "lokr") else "lora"
        fitting = [name for name, found in PRESETS.items() if found == layers]
        if fitting and not (config.text_encoder and fitting[0] in ("attn-only", *_WITHOUT_TEXT)):
            made["preset"] = fitting[0]
        if (preset := made.get("preset")) in _WIDER:
            lost.append(f"layers: preset={preset} also trains {_WIDER[preset]}")
    if made.get("preset") is None and layers not in (() if lycoris else (_ATTENTION, _ATTENTION | _CONV)):
        lost.append(f"layers = {sorted(layers)}: there is no such choice there")
    if methods.METHODS[config.method].magnitude:
        made |= {"dora_wd": True, "wd_on_output": config.dora_axis == "output"}
    if config.method == "lokr":
        made["factor"] = config.lokr_factor
    if "conv" in layers:
        from ...methods.spec import spec_of  # as kohya_blocks below it imports torch, which few configurations need

        made["conv_dim"], alpha = spec_of(config).rank_and_alpha(True)
        made["conv_alpha"] = f"{alpha:g}"
    for ours, theirs in SAME.items():
        value = getattr(config, ours)
        if value != type(config).model_fields[ours].default:
            made[theirs] = value
    if config.block_ranks or config.block_alphas:
        from . import blocks as kohya_blocks

        blocks = None if lycoris else kohya_blocks.write(config, xl, "conv" in layers)
        if blocks is None:
            why = "LyCORIS has no ranks of blocks" if lycoris else "its blocks have one rank each"
            lost.append(f"block_ranks = {config.block_ranks}: {why}")
        made |= blocks or {}
    return {key: str(value) for key, value in made.items()}, lost


class Reader:
    """Takes what it understands out of `arguments`; `lost` says what it does not, or what differs here."""

    def __init__(self, module: str, arguments: dict[str, str], source: str) -> None:
        self.left, self.source = dict(arguments), source
        self.lycoris = module.startswith("lycoris")
        self.algo = self.left.pop("algo", "lora").lower() if self.lycoris else "lora"
        self.lost: list[str] = []
        if module not in ("networks.lora", "lycoris.kohya") or self.algo not in ("lora", "locon", "loha", "lokr"):
            raise MaquetteError(f"{source}: network {module} {self.algo} has no equal here.")

    def config(self, rank: int, alpha: float, text_encoder: bool) -> dict[str, Any]:
        """Keys of TrainConfig. rank, alpha: --network_dim and --network_alpha."""
        made: dict[str, Any] = {}
        layers = self._layers(text_encoder, made)
        made["method"] = self._method(layers, made)
        if layers != set(methods.METHODS[made["method"]].layers):
            made["layers"] = sorted(layers)
        kernels = self._kernels(rank, alpha) if "conv" in layers else None
        if kernels not in (None, (rank, alpha)):
            made["conv_rank"], made["conv_alpha"] = kernels
        if made["method"] == "lokr":
            made["lokr_factor"] = self._whole("factor", -1)
        made |= self._faster(made.get("text_encoder", text_encoder))
        for ours, theirs in SAME.items():
            if theirs in self.left:
                made[ours] = value(self.left.pop(theirs))
        if not self.lycoris and "block_dims" in self.left:
            from . import blocks as kohya_blocks

            lists = {key: self.left.pop(key) for key in kohya_blocks.KEYS if key in self.left}
            ranks, alphas = kohya_blocks.read(lists, (rank, alpha), kernels, self.source)
            made |= {"block_ranks": ranks, "block_alphas": alphas}
        self.lost += [f"network_args {key}={text}" for key, text in self.left.items() if not neutral(value(text))]
        return made

    def _number(self, name: str, usual: float) -> float:
        text = self.left.pop(name, "")
        try:
            found = float(text) if text else usual
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise MaquetteError(f"{self.source}: network_args {name} = {text[:60]} is not a number.")
        return found

    def _whole(self, name: str, usual: int) -> int:
        text = self.left.get(name, "")
        found = self._number(name, usual)
        if found != int(found):
            raise MaquetteError(f"{self.source}: network_args {name} = {text[:60]} is not a whole number.")
        return int(found)

    def _faster(self, text_encoder: bool) -> dict[str, Any]:
        """LoRA+ of both parts, or of each: here there is one ratio."""
        both = self._number("loraplus_lr_ratio", 1.0) or 1.0
        unet = self._number("loraplus_unet_lr_ratio", both) or both
        text = self._number("loraplus_text_encoder_lr_ratio", both) or both
        if text_encoder and text != unet:
            why = f"all up matrices learn {unet:g} times faster here"
            self.lost.append(f"network_args loraplus_text_encoder_lr_ratio={text:g}: {why}")
        return {} if unet == 1 else {"lora_plus_ratio": unet}

    def _layers(self, text_encoder: bool, made: dict[str, Any]) -> set[str]:
        if not self.lycoris:
            if value(self.left.get("conv_dim", "")) in ("0", ""):
                self.left.pop("conv_dim", None)
            return _ATTENTION | (_CONV if {"conv_dim", "conv_block_dims"} & self.left.keys() else set())
        preset = self.left.pop("preset", "full")
        if preset not in PRESETS:
            self.lost.append(f"network_args preset={preset}: every layer of preset=full instead")
            preset = "full"
        elif preset in _WIDER:
            self.lost.append(f"network_args preset={preset}: there it also trains {_WIDER[preset]}")
        if preset in _WITHOUT_TEXT:
            made["text_encoder"] = False
        elif preset == "attn-only" and text_encoder:
            self.lost.append("network_args preset=attn-only: of the text encoder the MLP layers too")
        return PRESETS[preset]

    def _method(self, layers: set[str], made: dict[str, Any]) -> str:
        dora = bool(value(self.left.pop("dora_wd", "False")))
        per_output = bool(value(self.left.pop("wd_on_output", "True")))
        if dora and self.algo in ("loha", "lokr"):
            self.lost.append(f"network_args dora_wd=True: {self.algo} has no magnitude here")
        elif dora:
            made["dora_axis"] = "output" if per_output else "input"
            return "dora"
        if self.algo in ("loha", "lokr"):
            return self.algo
        return "locon" if "conv" in layers else "lora"

    def _kernels(self, rank: int, alpha: float) -> tuple[int, float] | None:
        """Rank and alpha of 3 x 3 convolutions. networks.lora has an alpha of 1 for them where none is given, and 0 is
        the rank; to LyCORIS both mean the other layers' alpha.
        """
        if not self.lycoris and "conv_dim" not in self.left:
            return None
        found = self._whole("conv_dim", 0) or rank
        own = self._number("conv_alpha", 0.0 if self.lycoris else 1.0)
        return found, own or (alpha if self.lycoris else float(found))


def value(text: str) -> Any:
    """A truth value written as text, or the text."""
    return {"true": True, "false": False}.get(text.lower(), text)
