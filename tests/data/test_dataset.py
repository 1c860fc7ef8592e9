"""From photo to pixels: buckets, crops, values, and the manifest of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from maquette.data.buckets import plan
from maquette.data.dataset import bucket_counts, manifest
from maquette.data.doctor import require_trainable
from maquette.data.layouts import read_folder
from maquette.data.views import View, views
from maquette.errors import MaquetteError

MakeImage = Callable[..., Image.Image]


def test_pixels_of_odd_files_are_upright_and_in_range(fault_folder: Path) -> None:
    data = plan(read_folder(fault_folder, "zkw robot"), 64, latent_factor=4)
    assert len(data.photos) == 5
    for photo in data.photos:
        values = View.planned(photo).pixels()
        width, height = photo.bucket
        assert (width, height) == (80, 48)
        assert values.shape == (3, height, width) and values.dtype == torch.float32
        assert values.min() >= -1 and values.max() <= 1
        if photo.name in {"good.JPG", "cmyk.jpg", "turned.jpg", "palette.png"}:
            red_corner, blue_corner = values[:, 5, 5], values[:, height - 5, 5]
            assert red_corner.tolist() == pytest.approx([220 / 127.5 - 1, 30 / 127.5 - 1, 30 / 127.5 - 1], abs=0.08)
            assert blue_corner.tolist() == pytest.approx([30 / 127.5 - 1, 30 / 127.5 - 1, 220 / 127.5 - 1], abs=0.08)


def test_flip_mirrors_and_the_crop_takes_the_middle(quadrants: MakeImage, tmp_path: Path) -> None:
    stripes = Image.new("RGB", (300, 100), (0, 0, 0))
    stripes.paste((255, 255, 255), (140, 0, 160, 100))
    stripes.save(tmp_path / "wide.png")
    photo = plan(read_folder(tmp_path, "x y"), 64, latent_factor=4).photos[0]
    assert photo.bucket == (96, 32)
    values = View.planned(photo).pixels()
    bright = (values[0, 16] > 0).nonzero().flatten().float().mean().item()
    assert bright == pytest.approx(47.5, abs=1)
    quadrants(64, 64).save(tmp_path / "wide.png")
    photo = plan(read_folder(tmp_path, "x y"), 64, latent_factor=4).photos[0]
    assert torch.equal(views(photo, flip=True)[1].pixels(), View.planned(photo).pixels().flip(2))
    assert View.planned(photo).pixels()[0, 3, 3] == pytest.approx(220 / 127.5 - 1)  # native size: not resampled


def test_what_must_be_enlarged_more_than_four_times_is_left_out_by_name(quadrants: MakeImage, tmp_path: Path) -> None:
    quadrants(15, 15).save(tmp_path / "icon.png")
    data = plan(read_folder(tmp_path, "x y"), 64, latent_factor=4)
    assert data.photos == []
    assert data.left_out[0].message == (
        "icon.png is too small: 15 x 15 pixels would be enlarged 4.3 times to 64 x 64; use the original photo."
    )
    with pytest.raises(MaquetteError, match=r"large enough to train on\. icon\.png is too small"):
        require_trainable(data, "x y")
    quadrants(16, 16).save(tmp_path / "icon.png")
    assert len(plan(read_folder(tmp_path, "x y"), 64, latent_factor=4).photos) == 1


def test_manifest_tells_what_was_trained_on(fault_folder: Path) -> None:
    data = plan(read_folder(fault_folder, "zkw robot", repeats=3), 64, latent_factor=4)
    record = json.loads(json.dumps(manifest(data)))
    assert record["resolution"] == [64, 64] and len(record["left_out"]) == 4
    entry = next(e for e in record["photos"] if e["name"] == "turned.jpg")
    assert entry["sha256"] == hashlib.sha256((fault_folder / "turned.jpg").read_bytes()).hexdigest()
    assert (entry["size"], entry["bucket"], entry["scaled"], entry["crop"]) == ([80, 60], [80, 48], [80, 60], [0, 6])
    assert (entry["caption"], entry["repeats"], entry["role"]) == ("a photo of zkw robot", 3, "instance")
    assert bucket_counts(data.photos) == {(80, 48): 15}
    square = plan(read_folder(fault_folder, "zkw robot"), 64, latent_factor=4, aspect_buckets=False)
    assert bucket_counts(square.photos) == {(64, 64): 5}
    assert [(p.crop.left, p.crop.top) for p in square.photos if p.crop] == [(10, 0)] * 5


def test_a_photo_that_changes_after_planning_is_refused(quadrants: MakeImage, tmp_path: Path) -> None:
    quadrants(64, 64).save(tmp_path / "a.png")
    photo = plan(read_folder(tmp_path, "x y"), 64, latent_factor=4).photos[0]
    quadrants(64, 64).rotate(90).save(tmp_path / "a.png")
    with pytest.raises(MaquetteError, match=r"a\.png changed while it was in use"):
        View.planned(photo).pixels()
