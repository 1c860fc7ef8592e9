"""Masks: from a folder or from transparency, brought to the latent's cells exactly as the photo is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from maquette.data.buckets import plan
from maquette.data.cache import LatentCache
from maquette.data.doctor import require_trainable
from maquette.data.layouts import read_folder
from maquette.data.views import View, views
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.training.latents import encode_photos

MakeImage = Callable[..., Image.Image]


def left_half(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (0, 0, width // 2, height))
    return mask


def test_masks_folder_is_found_paired_by_stem_and_not_trained_on(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "Masks").mkdir()
    for name in ["a", "b"]:
        quadrants(64, 64).save(tmp_path / f"{name}.png")
    left_half(64, 64).save(tmp_path / "Masks" / "A.jpg", quality=95)
    left_half(64, 64).save(tmp_path / "Masks" / "stray.png")
    data = plan(read_folder(tmp_path, "zkw robot"), 64, latent_factor=4)
    assert [(p.name, p.mask) for p in data.photos] == [("a.png", tmp_path / "Masks" / "A.jpg"), ("b.png", None)]
    assert [p.message for p in data.problems] == ["The mask stray.png is not used: there is no photo of that name."]
    weights = View.planned(data.photos[0]).mask(4)
    assert weights is not None and weights.shape == (1, 16, 16)
    assert weights[:, :, :7].min() > 0.97 and weights[:, :, 9:].max() < 0.03
    mirrored = views(data.photos[0], flip=True)[1].mask(4)
    assert mirrored is not None and torch.equal(mirrored, weights.flip(2))
    assert View.planned(data.photos[1]).mask(4) is None


def test_mask_follows_the_crop(tmp_path: Path) -> None:
    """A white disc on black is its own mask: cut and shrunk, mask and photo must still agree."""
    image = Image.new("RGB", (300, 200), (0, 0, 0))
    image.paste((255, 255, 255), (60, 40, 150, 160))
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "masks" / "a.png")
    for aspect_buckets in (False, True):
        data = plan(read_folder(tmp_path, "zkw robot"), 64, latent_factor=4, aspect_buckets=aspect_buckets)
        weights = View.planned(data.photos[0]).mask(4)
        assert weights is not None
        shrunk = torch.nn.functional.avg_pool2d((View.planned(data.photos[0]).pixels()[:1] + 1) / 2, 4)
        assert weights.shape == shrunk.shape and (weights - shrunk).abs().max() < 0.15
        assert (weights - shrunk).abs().mean() < 0.01


def test_transparency_as_mask_only_when_asked_for(quadrants: MakeImage, tmp_path: Path) -> None:
    image = quadrants(64, 64).convert("RGBA")
    image.putalpha(left_half(64, 64))
    image.save(tmp_path / "a.png")
    quadrants(64, 64).save(tmp_path / "opaque.png")
    assert [p.mask for p in read_folder(tmp_path, "zkw robot").photos] == [None, None]
    data = plan(read_folder(tmp_path, "zkw robot", alpha_mask=True), 64, latent_factor=4)
    assert [p.mask for p in data.photos] == ["alpha", None]
    weights = View.planned(data.photos[0]).mask(4)
    assert weights is not None and weights[0, 0].tolist() == [1.0] * 8 + [0.0] * 8


def test_a_mask_of_another_size_blocks(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    quadrants(64, 64).save(tmp_path / "a.png")
    quadrants(64, 64).save(tmp_path / "b.png")
    left_half(64, 32).save(tmp_path / "masks" / "a.png")
    data = read_folder(tmp_path, "zkw robot")
    assert [(p.photo, p.blocking) for p in data.problems] == [("a.png", True)]
    with pytest.raises(
        MaquetteError, match=r"The mask of a\.png is 64 x 32 pixels and the photo 64 x 64; make them equal"
    ):
        require_trainable(data, "zkw robot")


def test_an_empty_mask_is_refused(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    quadrants(64, 64).save(tmp_path / "a.png")
    Image.new("L", (64, 64), 0).save(tmp_path / "masks" / "a.png")
    photos = plan(read_folder(tmp_path, "zkw robot"), 64, latent_factor=4).photos
    for how in ({}, {"flip": True, "random_crop": True}):
        with pytest.raises(MaquetteError, match=r"The mask of a\.png covers nothing"):
            encode_photos(load("pocket"), photos, LatentCache(tmp_path / "cache"), lambda *_: None, **how)


@pytest.mark.parametrize(
    "name", ["a-masklabel.png", "a_mask.png", "a-mask.PNG", "A.mask.jpg", "mask_a.png", "Mask-A.jpg"]
)
def test_masks_beside_photos_are_used_and_said(quadrants: MakeImage, tmp_path: Path, name: str) -> None:
    quadrants(64, 64).save(tmp_path / "a.png")
    left_half(64, 64).save(tmp_path / name)
    data = read_folder(tmp_path, "zkw robot")
    assert [(p.name, p.mask, p.notes) for p in data.photos] == [("a.png", tmp_path / name, (f"masked by {name}",))]
    assert data.problems == []


def test_masks_of_no_photo_and_further_ones_are_left_out_by_name(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ("a.png", "party_mask.png"):  # a photo of a mask is a photo
        quadrants(64, 64).save(tmp_path / name)
    for name in ("a-condlabel.png", "a-masklabel.png", "a_mask.png", "b-masklabel.png"):
        left_half(64, 64).save(tmp_path / name)
    data = read_folder(tmp_path, "zkw robot")
    assert [p.name for p in data.photos] == ["a.png", "party_mask.png"]
    assert [(p.message, p.left_out) for p in data.problems] == [
        ("a-condlabel.png is a conditioning image of OneTrainer and is not used; only photos and masks are.", True),
        ("a_mask.png is not used: a-masklabel.png is a mask of the same photo.", True),
        ("The mask b-masklabel.png is not used: there is no photo of that name.", True),
    ]
    (tmp_path / "masks").mkdir()
    left_half(64, 64).save(tmp_path / "masks" / "a.png")
    data = read_folder(tmp_path, "zkw robot")
    assert data.photos[0].mask == tmp_path / "masks" / "a.png"
    assert "The mask a-masklabel.png is not used: its photo has another mask." in [p.message for p in data.problems]


def test_a_coloured_mask_may_be_a_photo_and_blocks(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ("hero.png", "hero_mask.png"):
        quadrants(64, 64).save(tmp_path / name)
    with pytest.raises(MaquetteError, match=r"hero_mask\.png is called as a mask of hero\.png but has colours"):
        read_folder(tmp_path, "zkw robot")
