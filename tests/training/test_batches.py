from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maquette.core.seeds import seeded
from maquette.data.buckets import Crop, crop_box, plan
from maquette.data.cache import LatentCache
from maquette.data.caption_options import CaptionOptions
from maquette.data.dataset import Photo
from maquette.data.layouts import read_folder
from maquette.data.views import View, views
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.training.batches import LatentDataset, time_ids_of
from maquette.training.latents import EncodedPhoto, encode_photos


def photo(name: str, repeats: int = 1) -> Photo:
    plain = Photo(Path(name), name, "0" * 64, (64, 64), f"caption {name}", "subject", repeats=repeats)
    return replace(plain, crop=crop_box((64, 64), (64, 64)))


def latent(value: float, width: int = 2) -> EncodedPhoto:
    return EncodedPhoto(torch.full((4, 2, width), value), torch.zeros(4, 2, width))


def photo_set(repeats: list[int], widths: list[int] | None = None, seed: int = 0) -> LatentDataset:
    widths = widths or [2] * len(repeats)
    photos = [photo(f"{i}.png", n) for i, n in enumerate(repeats)]
    return LatentDataset(photos, [[latent(float(i), w)] for i, w in enumerate(widths)], seed, "instance")


def test_every_epoch_shows_each_photo_as_often_as_it_repeats() -> None:
    photos = photo_set([1, 3, 1])
    row = [index for step in range(10) for index in photos.indices(step, 4)]
    for epoch in range(8):
        assert Counter(row[epoch * 5 : (epoch + 1) * 5]) == {0: 1, 1: 3, 2: 1}
    assert len({tuple(row[e * 5 : e * 5 + 5]) for e in range(8)}) > 3  # epochs are shuffled anew


def test_fourteen_photos_one_at_a_time_miss_none_in_any_epoch() -> None:
    photos = photo_set([1] * 14)
    row = [photos.indices(step, 1)[0] for step in range(14 * 20)]
    assert all(sorted(row[start : start + 14]) == list(range(14)) for start in range(0, len(row), 14))


def test_a_share_skips_no_photo_and_shows_none_twice() -> None:
    photos = photo_set([1] * 5)
    rows = [photos.indices(step, 2, 0.3) for step in range(50)]  # 30 in all
    assert {len(row) for row in rows} == {0, 1}
    assert Counter(i for row in rows for i in row) == {i: 6 for i in range(5)}


def test_a_step_depends_on_seed_and_number_only() -> None:
    forward = [photo_set([1] * 7).indices(step, 4) for step in range(9)]
    again = photo_set([1] * 7)
    assert [again.indices(step, 4) for step in reversed(range(9))] == forward[::-1]
    assert [photo_set([1] * 7, seed=1).indices(step, 4) for step in range(9)] != forward


def test_shapes_are_kept_apart_and_no_photo_is_lost() -> None:
    photos = photo_set([1] * 6, widths=[2, 3, 2, 3, 2, 3])
    batches = photos.batches(0, 6, 1, seeded(0, "x"))
    assert sorted(len(batch) for batch in batches) == [3, 3]
    for batch in batches:
        assert len({index % 2 for index in batch.photos}) == 1
        assert batch.x0[:, 0, 0, 0].tolist() == [float(index) for index in batch.photos]
    assert sorted(i for batch in batches for i in batch.photos) == list(range(6))


def test_accumulation_cuts_a_step_in_parts() -> None:
    batches = photo_set([1] * 6).batches(0, 6, 3, seeded(0, "x"))
    assert [len(batch) for batch in batches] == [2, 2, 2]


def test_latents_are_drawn_from_mean_and_deviation() -> None:
    spread = EncodedPhoto(torch.full((1, 50, 50), 3.0), torch.full((1, 50, 50), 0.5))
    photos = LatentDataset([photo("a")], [[spread]], 0, "instance")
    first, second = (photos.batches(step, 1, 1, seeded(0, step))[0].x0 for step in (0, 1))
    assert not torch.equal(first, second)
    assert abs(first.mean() - 3.0) < 0.05 and abs(first.std() - 0.5) < 0.05


def test_size_numbers_by_hand() -> None:
    # 200 x 100 scaled to 128 x 64, cut at (50, 0): mirrored, 128 - 64 - 50 = 14 pixels are missing on the left
    wide = replace(photo("w"), crop=Crop((64, 64), (128, 64), 50, 0, (200, 100)))
    assert time_ids_of(wide) == [100, 200, 0, 50, 64, 64]
    assert wide.crop is not None
    assert time_ids_of(wide, View(wide, wide.crop, flip=True)) == [100, 200, 0, 14, 64, 64]


def test_each_cut_brings_its_own_size_numbers() -> None:
    tall = replace(photo("t"), size=(100, 200), crop=crop_box((100, 200), (64, 64)))
    shown = views(tall, random_crop=True)
    assert [view.crop.top for view in shown] == [0, 9, 18, 27, 36, 45, 54, 64]
    rows = [replace(latent(float(i)), view=view) for i, view in enumerate(shown)]
    photos = LatentDataset([tall], [rows], 0, "instance")
    seen = {}
    for step in range(100):
        batch = photos.batches(step, 1, 1, seeded(0, step))[0]
        seen[int(batch.x0[0, 0, 0, 0])] = batch.time_ids[0].tolist()
    assert seen == {i: [200, 100, view.crop.top, 0, 64, 64] for i, view in enumerate(shown)}


def test_both_mirror_images_are_seen() -> None:
    photos = LatentDataset([photo("a")], [[latent(1.0), latent(-1.0)]], 0, "instance")
    seen = {photos.batches(step, 1, 1, seeded(0, step))[0].x0[0, 0, 0, 0].item() for step in range(20)}
    assert seen == {1.0, -1.0}


def test_masks_travel_with_their_photos_and_others_count_everywhere() -> None:
    half = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    masked = EncodedPhoto(torch.ones(4, 2, 2), torch.zeros(4, 2, 2), half)
    photos = LatentDataset([photo("a"), photo("b")], [[masked], [latent(0.0)]], 0, "instance")
    (batch,) = photos.batches(0, 2, 1, seeded(0, "x"))
    assert batch.mask is not None and batch.mask.shape == (2, 1, 2, 2)
    for index, mask in zip(batch.photos, batch.mask, strict=True):
        assert torch.equal(mask, half if index == 0 else torch.ones(1, 2, 2))
    assert photo_set([1, 1]).batches(0, 2, 1, seeded(0, "x"))[0].mask is None


def test_captions_vary_and_drop_out() -> None:
    tags = replace(photo("a"), caption="zkw, red, big", options=CaptionOptions(shuffle=True, keep_tokens=1))
    photos = LatentDataset([tags], [[latent(0.0)]], 0, "instance", caption_dropout=0.3)
    drawn = Counter(photos.batches(step, 1, 1, seeded(0, step))[0].captions[0] for step in range(300))
    assert set(drawn) == {"zkw, red, big", "zkw, big, red", ""}
    assert 60 <= drawn[""] <= 120


def test_what_is_drawn_for_one_photo_says_nothing_of_another() -> None:
    """Mirror, caption and noise of two photos in a step, and of two runs: every combination, about equally often."""
    photos = [replace(photo(name), caption="x, y", options=CaptionOptions(shuffle=True)) for name in "ab"]
    photos = [replace(each, sha256=each.name * 64) for each in photos]
    spread = torch.ones(4, 2, 2)
    rows = [[EncodedPhoto(spread * sign, spread * 0.01) for sign in (1, -1)] for _ in photos]
    drawn: Counter[tuple[object, ...]] = Counter()
    noises = []
    for step in range(800):
        (batch,) = LatentDataset(photos, rows, 0, "instance").batches(step, 2, 1, seeded(0, "step", step))
        order = [batch.photos.index(i) for i in (0, 1)]
        drawn[tuple((batch.x0[i, 0, 0, 0].item() > 0, batch.captions[i] == "x, y") for i in order)] += 1
        noises.append([batch.x0[i, 0, 0, 0].item() - round(batch.x0[i, 0, 0, 0].item()) for i in order])
    assert len(drawn) == 16 and all(20 <= count <= 90 for count in drawn.values())  # 50 each, more or less
    correlation = torch.corrcoef(torch.tensor(noises).T)[0, 1]
    assert abs(correlation) < 0.15
    other = [LatentDataset(photos, rows, 1, "instance").indices(step, 2) for step in range(40)]
    assert other != [LatentDataset(photos, rows, 0, "instance").indices(step, 2) for step in range(40)]


def test_a_photo_that_the_vae_cannot_encode_is_named(tmp_path: Path) -> None:
    base: Any = load("pocket")
    Image.new("RGB", (64, 64), (9, 99, 200)).save(tmp_path / "odd.png")
    data = plan(read_folder(tmp_path, "zkw robot"), 64, 4)
    base.encode_images = lambda pixels: (torch.full((1, 4, 16, 16), torch.nan), torch.ones(1, 4, 16, 16))
    with pytest.raises(
        MaquetteError, match=r"odd\.png cannot be encoded: the VAE of pocket gives .* not finite; name .*--vae"
    ):
        encode_photos(base, data.photos, LatentCache(tmp_path / "cache"), lambda *_: None)


def test_cuts_that_show_nothing_of_the_mask_are_left_out(tmp_path: Path) -> None:
    base = load("pocket")
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (256, 64), 0)
    mask.paste(255, (0, 0, 40, 64))  # at the left end
    for path, picture in [("a.png", Image.effect_noise((256, 64), 50)), ("masks/a.png", mask)]:
        picture.save(tmp_path / path)
    data = plan(read_folder(tmp_path, "zkw robot"), 64, 4, aspect_buckets=False)
    cache = LatentCache(tmp_path / "cache")
    (row,) = encode_photos(base, data.photos, cache, lambda *_: None, flip=True, random_crop=True)
    shown = [latent.view for latent in row if latent.view is not None]
    assert [(view.crop.left, view.flip) for view in shown] == [(0, False), (0, True), (27, False), (27, True)]
    assert [round(float(latent.mask.mean()), 2) for latent in row if latent.mask is not None] == [0.62, 0.62, 0.2, 0.2]
    assert row[0].mask is not None and row[1].mask is not None
    assert torch.equal(row[0].mask.flip(-1), row[1].mask)
