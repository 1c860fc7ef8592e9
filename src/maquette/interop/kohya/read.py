"""`maquette import kohya`: a sd-scripts command line, its TOML, or the GUI's JSON as a maquette configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ...config import TrainConfig, toml_text
from ...errors import MaquetteError
from ...trainers.kohya import OPTIONS, SAME, SCRIPTS, THEIR_DEFAULTS, UNKNOWN, neutral
from ...trainers.kohya_gui import FIELDS
from . import dataset as kohya_dataset
from . import network as kohya_network
from . import samples as kohya_samples
from . import training as kohya_training
from .source import Source, read
from .values import Values

# Keys of which 0 means, there, that nothing was asked for.
_ZERO_IS_NONE = {"save_every_n_steps", "save_every_n_epochs", "max_timestep", "lr_scheduler_num_cycles",
                 "lr_scheduler_timescale", "huber_c", "max_token_length"}  # fmt: skip
_NETWORK_ONLY = ("rank", "alpha")
_KEPT = {  # the same thing done otherwise: said where it is asked for
    "bucket_no_upscale": "a photo's own size is cut to the nearest whole steps here; theirs may be one step smaller",
    "weighted_captions": "weights keep the caption's mean here, as in prompts; theirs shift it",
    "alpha_mask": "the loss is divided by the mask's area here, so that a small subject learns as fast as a large one",
}


@dataclass
class ImportResult:
    """A configuration and what of the file it does not express."""

    config: dict[str, Any]
    toml: str
    needless: list[str] = field(default_factory=list)  # without effect here, or there
    no_equal: list[str] = field(default_factory=list)  # "key = value: why": has no counterpart here
    to_name: list[str] = field(default_factory=list)  # keys that the file leaves open: photos, base

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(path: str | Path) -> ImportResult:
    """Read a script, TOML or JSON. Raises MaquetteError when it is none of them or asks for what does not exist here.

    A script names its photos; a TOML or the GUI's JSON may leave them, and the base, to be named.
    """
    return _Reader(read(path)).result()


class _Reader:
    """Takes one option after the other; what is left over has no equal."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = Values(source.given, str(source.path))
        self.made: dict[str, Any] = dict(THEIR_DEFAULTS)
        self.no_equal: list[str] = list(source.notes)
        self.needless: list[str] = []

    def result(self) -> ImportResult:
        method = self._method()
        kohya_dataset.read(self)
        self._network(method)
        kohya_training.read(self)
        self._same()
        self._others()
        self._out()
        kohya_samples.read(self)
        self._rest()
        return self._made()

    @property
    def xl(self) -> bool | None:
        """Whether it trains SDXL; None where only the base would tell."""
        return self.source.script.startswith("sdxl") if self.source.script else None

    def lose(self, name: str, value: Any, why: str = "") -> None:
        shown = str(value) if len(str(value)) < 200 else f"{str(value)[:200]}…"
        self.no_equal.append(f"{name} = {shown}: {why}" if why else f"{name} = {shown}")

    def refuse(self, text: str) -> MaquetteError:
        return MaquetteError(f"{self.source.path}: {text}")

    def _method(self) -> str:
        """ "" for a network, whose module says more."""
        script, values = self.source.script, self.values
        if script and script not in SCRIPTS:
            raise self.refuse(f"{script} trains what maquette does not; known are {', '.join(SCRIPTS)}.")
        if script:
            return SCRIPTS[script]
        if "network_module" in values or "network_dim" in values:
            return ""
        if "token_string" in values:
            return "textual-inversion"
        whole = ("stop_text_encoder_training", "no_token_padding", "learning_rate_te", "learning_rate_te1", "block_lr",
                 "train_text_encoder")  # fmt: skip
        return "dreambooth" if any(name in values.left for name in whole) else ""

    def _network(self, method: str) -> None:
        values, made = self.values, self.made
        if method:
            made["method"] = method
            for key in _NETWORK_ONLY:
                made.pop(key)
            return
        module = values.text("network_module") or "networks.lora"
        words = [word.partition("=") for word in values.words("network_args")]
        arguments = {key: text.strip("\"'") for key, equals, text in words if equals}
        self.no_equal += [f"network_args {key}: it has no value" for key, equals, _ in words if not equals]
        rank = values.whole("network_dim")
        alpha = values.number("network_alpha")
        rank = made["rank"] if rank is None else rank
        alpha = float(rank if alpha == 0 else made["alpha"] if alpha is None else alpha)
        if "dropout" in arguments and "network_dropout" not in values:
            values.left["network_dropout"] = arguments.pop("dropout")
        only = bool(values.flag("network_train_unet_only"))
        reader = kohya_network.Reader(module, arguments, str(self.source.path))
        made |= {"rank": rank, "alpha": alpha}
        made |= reader.config(rank, alpha, not only)
        if only:
            made["text_encoder"] = False
        self.no_equal += reader.lost
        if made["method"] == "loha" and not neutral(values.left.get("network_dropout")):
            self.lose("network_dropout", values.left.pop("network_dropout"), "LoHa has none here")
        if values.flag("network_train_text_encoder_only"):
            raise self.refuse("it trains the text encoder alone; here the UNet always learns.")

    def _same(self) -> None:
        """Options of the same meaning and value."""
        for key, name in SAME.items():
            if name not in self.values or OPTIONS[name].own:
                continue
            value = self.values.take(name)
            if name == "prior_loss_weight" and name in UNKNOWN.get(self.source.script, ()):
                self.needless.append(f"{name} ({self.source.script} passes over it)")
                continue
            if name in _KEPT and value:
                self.lose(name, value, _KEPT[name])
            if not (value is None or (name in _ZERO_IS_NONE and not value)):
                self.made[key] = value

    def _others(self) -> None:
        """Single options with a meaning of their own."""
        values, made = self.values, self.made
        if self.made.get("save_every_steps") and self.made.get("save_every_epochs"):
            self.lose("save_every_n_epochs", made.pop("save_every_epochs"), "besides save_every_n_steps")
        seed = values.whole("seed")
        if seed is not None:
            made["seed"] = seed
        skip = values.whole("clip_skip")
        if skip and self.xl:
            self.needless.append("clip_skip (Kohya's trainer ignores it on SDXL)")
        elif skip:
            made["clip_skip"] = skip
            if self.xl is None and skip != 1:
                self.lose("clip_skip", skip, "kept; leave it out on SDXL, where Kohya's trainer ignores it")
        tokens = values.whole("max_token_length")
        if tokens:
            made["max_token_length"] = tokens
        predicts = values.flag("v_parameterization")
        if predicts and not values.left.get("v2"):
            self.lose("v_parameterization", True, "taken from the base; look whether maquette inspect says v there")
        kohya_training.words(self, "dtype")
        kohya_training.words(self, "save_dtype")
        trackers = values.text("log_with")
        if trackers in ("tensorboard", "wandb", "all"):
            made["trackers"] = ["tensorboard", "wandb"] if trackers == "all" else [trackers]
        if made["method"] == "textual-inversion":
            made["num_vectors"] = values.whole("num_vectors_per_token") or 1
            for name, key in (("token_string", "subject"), ("init_word", "init_word")):
                if name in values:
                    made[key] = values.text(name)
        if not values.left.get("alpha_mask") and values.flag("masked_loss"):
            self.lose("masked_loss", True, OPTIONS["masked_loss"].why)

    def _out(self) -> None:
        values, made = self.values, self.made
        folder, name = values.text("output_dir"), values.text("output_name")
        if folder is not None:
            made["out"] = folder if name is None else below(folder, name)
        elif name is not None:
            made["out"] = f"runs/{name}"
        ratio, epochs = values.whole("save_n_epoch_ratio"), made.get("epochs")
        if ratio and epochs and not made.get("save_every_steps"):
            made["save_every_epochs"] = max(1, epochs // ratio)
        elif ratio:
            self.lose("save_n_epoch_ratio", ratio, "needs max_train_epochs")
        window, kept = values.whole("save_last_n_steps"), values.whole("save_last_n_epochs")
        if window and made.get("save_every_steps"):
            made["keep_last"] = window // int(made["save_every_steps"]) + 1
        elif kept and made.get("save_every_epochs"):
            made["keep_last"] = max(1, kept)

    def _rest(self) -> None:
        """What is left: without effect, without an equal, or of another script."""
        for name, value in self.values.left.items():
            option = OPTIONS.get(name) or FIELDS.get(name)
            if option is None:
                if not neutral(value):
                    self.lose(name[:100], value)
            elif option.fate == "no effect":
                self.needless.append(name)
            elif option.fate == "no equal":
                idle = neutral(value) or value in option.nothing or str(value) in map(str, option.nothing)
                if not idle:
                    self.lose(name, value, option.why)
            elif not neutral(value):
                self.needless.append(f"{name} (means nothing to this training)")

    def _made(self) -> ImportResult:
        config, to_name = self.made, []
        if "photos" not in config:
            to_name.append("photos")
        if "base" not in config:
            to_name.append("base")
        names = {option.key: option.name for option in OPTIONS.values() if option.key}
        parsed = TrainConfig.parse({"photos": ".", **config}, str(self.source.path), names)
        chosen = parsed.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        if "photos" not in config:
            del chosen["photos"]
        return ImportResult(chosen, toml_text(chosen), sorted(self.needless), self.no_equal, to_name)


def below(folder: str, name: str) -> str:
    """The path of `name` in a folder, with the folder's own kind of slash; the folder where it ends in that name."""
    windows = "\\" in folder
    path = PureWindowsPath(folder) if windows else PurePosixPath(folder)
    return folder if path.name == name else str(path / name)
