"""The latent cache: found by content only, whole or not at all, bounded."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from maquette.data.buckets import plan
from maquette.data.cache import LatentCache, cache_folder
from maquette.data.dataset import Photo
from maquette.data.layouts import read_folder
from maquette.data.views import View, views
from maquette.errors import MaquetteError
from maquette.training.latents import encode_photos

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def photos(quadrants: MakeImage, tmp_path: Path) -> list[Photo]:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        quadrants(64 + 8 * number, 64).save(tmp_path / "photos" / f"{number}.png")
    return plan(read_folder(tmp_path / "photos", "x y"), 64, latent_factor=4).photos


class Encoder:
    """Stands for a base and its VAE; `asked` names the photos that were encoded."""

    spec = SimpleNamespace(latent_channels=3, latent_factor=4)
    content_hash, vae_hash, device, vae = "vae", "", torch.device("cpu"), nn.Linear(1, 1)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_images(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x[:, :, ::4, ::4]
        return mean, mean.abs() + 0.1


KEYED = "vae cpu torch.float32"  # what identifies its latents


def latents_of(photos: list[Photo], encoder: Any, cache: LatentCache, **how: bool) -> list[list[tuple[Tensor, Tensor]]]:
    """Mean and deviation of each view of each photo."""
    found = encode_photos(encoder, photos, cache, lambda what, n, of: encoder.asked.append(photos[n - 1].name), **how)
    return [[(latent.mean, latent.std) for latent in row] for row in found]


def test_second_time_comes_from_the_cache_bit_for_bit(photos: list[Photo], tmp_path: Path) -> None:
    first, second = Encoder(), Encoder()
    cache = LatentCache(tmp_path / "cache")
    fresh = latents_of(photos, first, cache, flip=True)
    again = latents_of(photos, second, LatentCache(tmp_path / "cache"), flip=True)
    assert len(first.asked) == 6 and second.asked == []
    for row, other in zip(fresh, again, strict=True):
        for (mean, std), (mean2, std2) in zip(row, other, strict=True):
            assert torch.equal(mean, mean2) and torch.equal(std, std2)
    assert not torch.equal(fresh[0][0][0], fresh[0][1][0])
    assert sorted(p.name for p in (tmp_path / "photos").iterdir()) == ["0.png", "1.png", "2.png"]


def test_a_changed_pixel_crop_encoder_or_mirror_is_another_entry(photos: list[Photo], tmp_path: Path) -> None:
    photo = photos[1]
    assert photo.crop is not None
    crop = photo.crop
    keys = {
        View(photo, crop).key("vae"),
        View(photo, crop, flip=True).key("vae"),
        View(photo, crop).key("other vae"),
        View(replace(photo, sha256="0" * 64), crop).key("vae"),
        View(photo, replace(crop, left=crop.left + 1)).key("vae"),
        View(photo, replace(crop, bucket=(72, 56))).key("vae"),
    }
    assert len(keys) == 6
    # the name alone does not matter: a renamed photo is the same photo
    assert View(replace(photo, name="new.png", path=Path("new.png")), crop).key("vae") in keys


def test_same_name_new_content_is_encoded_again(photos: list[Photo], quadrants: MakeImage, tmp_path: Path) -> None:
    cache = LatentCache(tmp_path / "cache")
    old = latents_of(photos, Encoder(), cache)
    quadrants(64, 64).rotate(180).save(tmp_path / "photos" / "0.png")
    encoder = Encoder()
    renewed = plan(read_folder(tmp_path / "photos", "x y"), 64, latent_factor=4).photos
    new = latents_of(renewed, encoder, cache)
    assert encoder.asked == ["0.png"]
    assert not torch.equal(old[0][0][0], new[0][0][0])


def test_cuts_at_several_places_are_kept_apart(photos: list[Photo], tmp_path: Path) -> None:
    cache = LatentCache(tmp_path / "cache")
    square = plan(read_folder(tmp_path / "photos", "x y"), 64, latent_factor=4, aspect_buckets=False).photos
    shown = [views(photo, flip=True, random_crop=True) for photo in square]
    assert [len(row) for row in shown] == [2, 16, 16]  # 64 x 64 is not cut; 72 and 80 x 64 are, at eight places
    fresh = latents_of(square, Encoder(), cache, flip=True, random_crop=True)
    encoder = Encoder()
    again = latents_of(square, encoder, cache, flip=True, random_crop=True)
    assert encoder.asked == []
    for row, old, new in zip(shown, fresh, again, strict=True):
        for view, (mean, _), (kept, _) in zip(row, old, new, strict=True):
            assert torch.equal(mean, kept) and torch.equal(kept, view.pixels()[:, ::4, ::4])


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other entry"])
def test_damaged_entries_are_encoded_again(photos: list[Photo], tmp_path: Path, damage: str) -> None:
    cache = LatentCache(tmp_path / "cache")
    latents_of(photos, Encoder(), cache)
    path = cache.path(View.planned(photos[0]).key(KEYED))
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[-3] ^= 1
    other = cache.path(View.planned(photos[1]).key(KEYED)).read_bytes()
    path.write_bytes(
        {"cut": bytes(data[: len(data) // 2]), "bit": bytes(data), "empty": b"", "other entry": other}[damage]
    )
    encoder = Encoder()
    latents = latents_of(photos, encoder, cache)
    assert encoder.asked == ["0.png"]
    assert torch.equal(latents[0][0][0], View.planned(photos[0]).pixels()[:, ::4, ::4])


def forged(key: str, tensors: dict[str, Tensor]) -> bytes:
    """An entry with a right checksum."""
    body = save(tensors)
    return hashlib.sha256(key.encode() + body).digest() + body


FORGED = {
    "another name": {"x": torch.zeros(2, 3, 16, 16)},
    "one tensor": {"mean_std": torch.zeros(1, 3, 16, 16)},
    "a number": {"mean_std": torch.tensor(1.0)},
    "another shape": {"mean_std": torch.zeros(2, 3, 16, 15)},
    "more channels": {"mean_std": torch.zeros(2, 4, 16, 16)},
    "whole numbers": {"mean_std": torch.zeros(2, 3, 16, 16, dtype=torch.int64)},
    "not finite": {"mean_std": torch.full((2, 3, 16, 16), torch.nan)},
    "a negative deviation": {"mean_std": torch.full((2, 3, 16, 16), -1.0)},
}


@pytest.mark.parametrize("fault", FORGED)
def test_forged_entries_are_encoded_again(photos: list[Photo], tmp_path: Path, fault: str) -> None:
    cache, key = LatentCache(tmp_path / "cache"), View.planned(photos[0]).key(KEYED)
    cache.path(key).parent.mkdir(parents=True)
    cache.path(key).write_bytes(forged(key, FORGED[fault]))
    encoder = Encoder()
    latents = latents_of(photos[:1], encoder, cache)
    assert len(encoder.asked) == 1 and torch.equal(latents[0][0][0], View.planned(photos[0]).pixels()[:, ::4, ::4])
    again = latents_of(photos[:1], encoder, cache)
    assert len(encoder.asked) == 1 and torch.equal(again[0][0][0], latents[0][0][0])


def test_pipes_are_not_read_and_links_not_followed(photos: list[Photo], tmp_path: Path) -> None:
    cache, key = LatentCache(tmp_path / "cache"), View.planned(photos[0]).key(KEYED)
    cache.path(key).parent.mkdir(parents=True)
    os.mkfifo(cache.path(key))
    encoder = Encoder()
    latents_of(photos[:1], encoder, cache)
    assert len(encoder.asked) == 1 and cache.get(key) is not None  # the entry took the pipe's place
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "old.tmp").write_text("precious")
    (mine / ("0" * 64 + ".latent")).write_text("precious")
    os.utime(mine / "old.tmp", (1, 1))
    for name in ("00", "aa", "photos"):
        (cache.folder / name).symlink_to(mine)
    assert LatentCache(tmp_path / "cache", most_bytes=0).trim() > 0  # the one entry
    assert cache.get("0" * 64) is None
    with pytest.raises(MaquetteError, match="latents/00 is a link out of the cache"):
        cache.put("0" * 64, torch.zeros(1), torch.zeros(1))
    assert sorted(path.name for path in mine.iterdir()) == ["0" * 64 + ".latent", "old.tmp"]


def test_size_bound_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path)
    tensor = torch.zeros(4, 16, 16)
    for number in range(10):
        cache.put(f"{number:064d}", tensor, tensor)
        os.utime(cache.path(f"{number:064d}"), (number, number))
    one = cache.path(f"{0:064d}").stat().st_size
    assert cache.get(f"{0:064d}") is not None  # used just now
    bounded = LatentCache(tmp_path, most_bytes=4 * one)
    assert bounded.trim() == 6 * one
    assert [n for n in range(10) if bounded.get(f"{n:064d}")] == [0, 7, 8, 9]


def test_leftovers_of_killed_processes_go_when_they_are_old(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path)
    cache.put("ab" * 32, torch.zeros(1), torch.zeros(1))
    old, young = cache.folder / "ab" / "old.tmp", cache.folder / "ab" / "young.tmp"
    old.write_bytes(b"x" * 7)
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert cache.trim() == 7
    assert not old.exists() and young.exists() and cache.get("ab" * 32) is not None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MAQUETTE_CACHE", raising=False)
    assert cache_folder(Path("runs")) == Path("runs/.cache")
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    assert cache_folder(Path("runs")) == tmp_path


WRITER = """
import sys, torch
from maquette.data.cache import LatentCache
cache = LatentCache(sys.argv[1])
print("ready", flush=True)
for number in range(5000):
    key = f"{number * 7919 % 5000:064x}"
    if cache.get(key) is None:
        cache.put(key, torch.full((4, 16, 16), float(int(key, 16))), torch.ones(4, 16, 16))
print("done", flush=True)
"""


@pytest.mark.heavy
def test_five_thousand_entries_survive_ten_kills_with_two_writers(tmp_path: Path) -> None:
    moments = random.Random(3)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    for _ in range(10):
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.01, 0.4))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("done\n")
    cache = LatentCache(tmp_path)
    for number in range(5000):
        latent = cache.get(f"{number:064x}")
        assert latent is not None and (latent[0] == number).all() and (latent[1] == 1).all()
