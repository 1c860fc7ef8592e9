"""A drawing process without torch, for tests: pictures that follow from prompt, seed, LoRA weights and masks.

`MAQUETTE_ENGINE=fake` chooses it. `MAQUETTE_FAKE_STEP` is the seconds that a step takes. A prompt with the words
"fake crash", "fake memory" or "fake error" meets that fault at its second step.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.images import open_photo
from ..errors import MaquetteError
from ..events import Event, Listener
from ..formats.png import format_infotext, number_text
from ..prompts import Network, parse_networks
from ..sampling.draw_settings import DrawSettings
from ..sampling.lora_folder import some
from .drawing_child import OnPicture, run

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 64
_CELLS = 8  # sides of the drawn blots


class FakeArtist:
    """Draws blots."""

    def __init__(self, opening: Mapping[str, Any]) -> None:
        self.base = str(opening["base"])
        if self.base != "pocket" and not Path(self.base).exists():
            raise MaquetteError(f"{self.base} does not exist.")

    def facts(self) -> dict[str, Any]:
        return {"hash": hashlib.sha256(self.base.encode()).hexdigest(), "native": _SIDE}

    def close(self) -> None:
        """Nothing is open."""

    def draw(
        self,
        settings: dict[str, Any],
        loras: Mapping[str, str],
        on_picture: OnPicture,
        on_event: Listener,
        interrupt: threading.Event,
    ) -> None:
        plain = {**settings, "sampler": "DDIM", "schedule_type": "Automatic"}  # whose tables need torch
        axes = {axis: plain.pop(axis) for axis in "xyz" if axis in plain}
        if any(axes.values()) and not all("=" in axis for axis in axes.values() if axis):
            raise MaquetteError("Write an axis as NAME=VALUES, such as weight=0.4-1 [4].")
        plain["controls"] = [{**unit, "image": None} for unit in settings.get("controls", [])]
        plain |= {"hires_sampler": None, "hires_schedule_type": None, "hires_upscaler": "Latent"}
        wish = DrawSettings.model_construct(**{**_defaults(), **plain})
        networks = _known(parse_networks(wish.prompt)[1], loras, on_event)
        first = wish.seed if wish.seed >= 0 else int.from_bytes(os.urandom(3))
        for batch in range(wish.batch_count):
            if interrupt.is_set():
                return
            seeds = [first + batch * wish.batch_size + i for i in range(wish.batch_size)]
            self._steps(wish, networks, seeds[0], batch, on_event, interrupt)
            for seed in seeds:
                image = self._picture(wish, networks, seed)
                facts = {"seed": seed, "infotext": self._infotext(wish, settings, seed, image.size)}
                on_picture(image, {**facts, "prompt": wish.prompt, "negative_prompt": wish.negative_prompt})

    def _steps(
        self,
        wish: DrawSettings,
        networks: Sequence[Network],
        seed: int,
        batch: int,
        on_event: Listener,
        interrupt: threading.Event,
    ) -> None:
        each = float(os.environ.get("MAQUETTE_FAKE_STEP", "0.005"))
        for step in range(1, wish.steps + 1):
            if step == 2:
                _faults(wish.prompt)
            time.sleep(each)
            done, of = batch * wish.steps + step, wish.steps * wish.batch_count
            on_event(Event("progress", {"what": "drawing", "done": done, "of": of}))
            if wish.preview_every and step % wish.preview_every == 0:
                url = _data_url(_blots(self._key(wish, networks, seed), _CELLS, _CELLS))
                on_event(Event("preview", {"step": step, "pictures": [url]}))
            if interrupt.is_set():
                return

    def _key(self, wish: DrawSettings, networks: Sequence[Network], seed: int) -> str:
        weights = [(n.positional[0], _weight(n)) for n in networks if _weight(n) != 0]
        hints = [repr(unit) for unit in wish.controls]
        words = parse_networks(wish.prompt)[0].strip()
        return repr((words, wish.negative_prompt, seed, weights, hints, self.base))

    def _picture(self, wish: DrawSettings, networks: Sequence[Network], seed: int) -> Image:
        from PIL import Image, ImageFilter

        width, height = wish.width or _SIDE, wish.height or _SIDE
        if wish.hires_scale:
            width, height = int(width * wish.hires_scale), int(height * wish.hires_scale)
        drawn = _blots(self._key(wish, networks, seed), width, height)
        if wish.init_image is None:
            return drawn
        begun = open_photo(wish.init_image).convert("RGB").resize((width, height))
        blended = Image.blend(begun, drawn, wish.strength)
        if not wish.mask:
            return blended
        mask = open_photo(wish.mask).convert("L").resize((width, height))
        if wish.mask_invert:
            mask = mask.point([255 - i for i in range(256)])
        return Image.composite(blended, begun, mask.filter(ImageFilter.GaussianBlur(wish.mask_blur)))

    def _infotext(self, wish: DrawSettings, settings: Mapping[str, Any], seed: int, size: tuple[int, int]) -> str:
        values = {
            "Steps": wish.steps,
            "Sampler": settings.get("sampler", "DDIM"),
            "Schedule type": settings.get("schedule_type", "Automatic"),
            "CFG scale": number_text(wish.cfg_scale or 4.0),
            "Seed": seed,
            "Size": f"{size[0]}x{size[1]}",
            "Model hash": self.facts()["hash"][:10],
            "Model": Path(self.base).stem,
            "Denoising strength": None if wish.init_image is None else number_text(wish.strength),
            "Clip skip": wish.clip_skip if wish.clip_skip > 1 else None,
            "Version": "maquette-fake",
        }
        return format_infotext(wish.prompt, wish.negative_prompt, values)


def _defaults() -> dict[str, Any]:
    fields = DrawSettings.model_fields.items()
    return {key: field.get_default(call_default_factory=True) for key, field in fields if not field.is_required()}


def _known(networks: Sequence[Network], loras: Mapping[str, str], on_event: Listener) -> list[Network]:
    for network in networks:
        name = network.positional[0]
        if name not in loras:
            message = f"There is no LoRA {name!r}; there are {some(loras)}. Drawn without it."
            on_event(Event("warning", {"message": message}))
    return [network for network in networks if network.positional[0] in loras]


def _weight(network: Network) -> float:
    return float(network.positional[1]) if len(network.positional) > 1 else 1.0


def _faults(prompt: str) -> None:
    if "fake crash" in prompt:
        os._exit(9)
    if "fake memory" in prompt:
        raise MemoryError
    if "fake error" in prompt:
        raise ValueError("as the prompt asked")


def _blots(key: str, width: int, height: int) -> Image:
    """Colours that follow from a text, smoothly over the picture."""
    from PIL import Image

    data = b"".join(hashlib.sha256(f"{key}{i}".encode()).digest() for i in range(6))
    small = Image.frombytes("RGB", (_CELLS, _CELLS), data[: 3 * _CELLS * _CELLS])
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _data_url(image: Image) -> str:
    import base64

    stream = BytesIO()
    image.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


if __name__ == "__main__":
    run(FakeArtist)
