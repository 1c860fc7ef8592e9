"""How training sees a photo: where it is cut, whether it is mirrored, its pixels, and which of them count."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from .buckets import Crop, cut_places
from .dataset import Photo
from .images import read_photo

if TYPE_CHECKING:
    from torch import Tensor

RANDOM_CROPS = 8  # places at which a photo is cut when it is not always cut in the middle; each is encoded once
FORMAT = 1  # part of every key: raise it when the meaning of a kept latent changes


@dataclass(frozen=True)
class View:
    """A photo as training sees it: where it is cut, and whether it is mirrored."""

    photo: Photo
    crop: Crop
    flip: bool = False

    @classmethod
    def planned(cls, photo: Photo) -> View:
        """The view with the crop that `buckets.plan` has chosen."""
        if photo.crop is None:
            raise ValueError(f"{photo.name} has no bucket yet: call plan() first")
        return cls(photo, photo.crop)

    def key(self, encoder: str) -> str:
        """Name of its latent in the cache: the same for the same content, cut and encoder, whatever the file is called.

        encoder: whatever identifies the encoder's weights and arithmetic.
        """
        crop = self.crop
        parts = [FORMAT, self.photo.sha256, crop.bucket, crop.scaled, crop.left, crop.top, self.flip, encoder]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def pixels(self) -> Tensor:
        """The photo cut and scaled to its bucket: float32 (3, H, W) in [-1, 1].

        Raises MaquetteError when the file has changed since the folder was read.
        """
        import numpy as np
        import torch
        from PIL import Image, ImageOps

        opened = read_photo(self.photo.path, self.photo.name)
        if opened.sha256 != self.photo.sha256:
            raise MaquetteError(f"{self.photo.name} changed while it was in use; start again.")
        cut = opened.image.resize(self.crop.bucket, Image.Resampling.LANCZOS, box=self.crop.box)
        values = np.array(ImageOps.mirror(cut) if self.flip else cut, dtype=np.float32)  # (H, W, 3), 0..255
        return torch.from_numpy(values).permute(2, 0, 1).contiguous() / 127.5 - 1

    def mask(self, latent_factor: int) -> Tensor | None:
        """How much each latent cell counts, which is the share of it that the photo's mask covers: float32
        (1, H/f, W/f) in [0, 1]; None where all count. Raises MaquetteError when the mask has changed size.
        """
        import numpy as np
        import torch
        from PIL import Image, ImageOps

        photo = self.photo
        if photo.mask is None:
            return None
        if photo.mask == "alpha":
            mask = read_photo(photo.path, photo.name).alpha
        else:
            mask = read_photo(photo.mask, f"the mask {photo.mask.name}").image.convert("L")
        if mask is None or mask.size != photo.size:
            raise MaquetteError(f"The mask of {photo.name} changed while it was in use; start again.")
        width, height = (side // latent_factor for side in self.crop.bucket)
        cells = mask.resize((width, height), Image.Resampling.BOX, box=self.crop.box)
        return torch.from_numpy(np.array(ImageOps.mirror(cells) if self.flip else cells, dtype=np.float32))[None] / 255


def views(photo: Photo, flip: bool = False, random_crop: bool = False) -> list[View]:
    """The planned view, or with random_crop up to RANDOM_CROPS of them; with flip each of them mirrored too."""
    planned = View.planned(photo)
    crops = cut_places(planned.crop, RANDOM_CROPS) if random_crop else [planned.crop]
    return [View(photo, crop, mirrored) for crop in crops for mirrored in ((False, True) if flip else (False,))]
