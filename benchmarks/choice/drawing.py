"""The base and its judge, opened once; pictures drawn by the base as it is or as a candidate changes it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import Judge, judge
from maquette.sampling.loop import sample
from tools.pocket.scenes import STYLES, with_article

CFG_SCALE = 4.0
STEPS = 8  # of DDIM: on 24 prompts the pictures have cosine 0.999 with those of 20 steps
BATCH = {"cpu": 32, "cuda": 256}
SHOWN = ("red", "white", "gray")  # backgrounds on which subjects are compared with what the base knows

__all__ = ["Room", "a_photo", "with_article"]


def a_photo(things: str, colour: str, style: str = "") -> str:
    """ "a photo of zkw bear on an orange background, flat style"."""
    text = f"a photo of {things} on {with_article(colour)} background"
    return f"{text}, {STYLES[style]}" if style else text


@dataclass
class Room:
    """Where pictures are drawn and judged."""

    base: BaseModel
    court: Judge
    _texts: dict[str, Conditioning] = field(default_factory=dict)

    @staticmethod
    def open(device: str = "auto") -> Room:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        court = judge()
        tower = deepcopy(court.tower).to(chosen)
        if chosen == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it: what programs draw with is less
        return Room(
            load("pocket", device=torch.device(chosen)), replace(court, tower=tower, colours=court.colours.to(chosen))
        )

    @torch.no_grad()
    def told(self, prompts: Sequence[str]) -> Conditioning:
        """The prompts as the base's own text encoder says them, each encoded once: no candidate here changes it."""
        for prompt in {*prompts} - self._texts.keys():
            self._texts[prompt] = self.base.encode_text([prompt])
        return Conditioning.cat([self._texts[prompt] for prompt in prompts])

    def forget(self) -> None:
        """What prompts say, where a candidate changes it: a learned word."""
        self._texts.clear()

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], base: BaseModel | None = None) -> Tensor:
        """(N, 3, 64, 64) in [0, 1], one picture for each prompt and seed."""
        base = base or self.base
        parts = self.latents(prompts, seeds, base).split(self.at_once)
        return torch.cat([self.seen(latents, base) for latents in parts])

    @property
    def at_once(self) -> int:
        """How many pictures are drawn together."""
        return BATCH[self.base.device.type]

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], seeds: Sequence[int], base: BaseModel) -> Tensor:
        """(N, 4, 16, 16), one for each prompt and seed."""
        parts, size = [], base.spec.native_size
        for i in range(0, len(prompts), self.at_once):
            part = prompts[i : i + self.at_once]
            parts.append(
                sample(
                    base, self.told(part), self.told([""] * len(part)), sampler="DDIM", steps=STEPS,
                    cfg_scale=CFG_SCALE, seeds=seeds[i : i + self.at_once], width=size, height=size,
                )
            )  # fmt: skip
        return torch.cat(parts)

    @torch.no_grad()
    def seen(self, latents: Tensor, base: BaseModel | None = None) -> Tensor:
        """(N, 3, 64, 64) in [0, 1]."""
        return (base or self.base).decode(latents).float().clamp(0, 1)

    @torch.no_grad()
    def embedded(self, scenes: Tensor) -> Tensor:
        """(N, D) unit vectors of true scenes (N, 3, 64, 64), seen through the base's autoencoder as pictures are."""
        return self.court.embed(self._coded(scenes))

    @torch.no_grad()
    def features(self, scenes: Tensor) -> Tensor:
        """(N, 192) of the judge's tower before its heads, seen likewise."""
        return self.court.tower.features(self._coded(scenes) * 2 - 1)

    def _coded(self, scenes: Tensor) -> Tensor:
        """The scenes as the base's autoencoder gives them back."""
        return self.seen(self.base.encode_images(scenes.to(self.base.device) * 2 - 1)[0])

    def known_objects(self) -> Tensor:
        """(objects, SHOWN colours, D): what the base draws for each of its words on each colour."""
        prompts = [a_photo(with_article(o), c) for o in self.court.objects for c in SHOWN]
        pictures = self.draw(prompts, list(range(len(prompts))))
        return self.court.embed(pictures).reshape(len(self.court.objects), len(SHOWN), -1)


def sprites_at(folder: Path) -> Path:
    """The folder, which must exist."""
    if not folder.is_dir():
        raise SystemExit(f"There is no folder {folder}.")
    return folder
