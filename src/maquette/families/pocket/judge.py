"""Names what a 64-pixel picture shows: object and style by the image tower, background by the colour at the border."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ...formats.safetensors import load, read_metadata
from .spec import WEIGHTS
from .tower import ImageTower

TOWER_FILE = "image_tower.safetensors"
BORDER = 3  # pixels at each side that count as background


@dataclass(frozen=True)
class Judge:
    """objects, styles: names in the order of the heads. colours: (K, 3) RGB in [0, 1], named by `colour_names`."""

    tower: ImageTower
    objects: tuple[str, ...]
    styles: tuple[str, ...]
    colour_names: tuple[str, ...]
    colours: Tensor

    @torch.no_grad()
    def object_probabilities(self, pixels: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [0, 1] -> (B, objects) softmax of the object head."""
        result: Tensor = self.tower.object_head(self.tower.features(pixels * 2 - 1)).softmax(1)
        return result

    @torch.no_grad()
    def name_objects(self, pixels: Tensor) -> list[str]:
        return [self.objects[i] for i in self.object_probabilities(pixels).argmax(1).tolist()]

    @torch.no_grad()
    def name_styles(self, pixels: Tensor) -> list[str]:
        return [self.styles[i] for i in self.tower.style_head(self.tower.features(pixels * 2 - 1)).argmax(1).tolist()]

    def name_backgrounds(self, pixels: Tensor) -> list[str]:
        """The named colour nearest (Euclid, RGB) to the median of the border's pixels."""
        inner = torch.zeros(pixels.shape[-2:], dtype=torch.bool, device=pixels.device)
        inner[BORDER:-BORDER, BORDER:-BORDER] = True
        median = pixels[:, :, ~inner].median(dim=2).values  # (B, 3)
        return [self.colour_names[i] for i in torch.cdist(median, self.colours).argmin(1).tolist()]

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [0, 1] -> (B, 96) unit vectors of the project's own CLIP."""
        return self.tower.embed_images(pixels * 2 - 1)


def pack(vocabulary: dict[str, Sequence[str]], colours: dict[str, tuple[int, int, int]]) -> dict[str, str]:
    """Metadata of the tower's file, from which `judge` reads the names."""
    return {**{k: json.dumps(list(v)) for k, v in vocabulary.items()}, "colours": json.dumps(colours)}


@cache
def judge() -> Judge:
    """The judge of the embedded pocket base."""
    path = WEIGHTS / TOWER_FILE
    names = {k: json.loads(v) for k, v in read_metadata(path).items()}
    tower = ImageTower(len(names["objects"]), len(names["styles"]))
    tower.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load(path).items()})
    colours = torch.tensor(list(names["colours"].values())) / 255
    return Judge(tower.eval(), tuple(names["objects"]), tuple(names["styles"]), tuple(names["colours"]), colours)
