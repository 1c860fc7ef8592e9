from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from maquette.data.buckets import crop_box
from maquette.data.dataset import Photo
from maquette.stages.training.batches import Latent, PhotoSet, generator


def photo(name: str, repeats: int = 1) -> Photo:
    plain = Photo(Path(name), name, "0" * 64, (64, 64), f"caption {name}", "subject", repeats)
    return replace(plain, crop=crop_box((64, 64), (64, 64)))


def latent(value: float, width: int = 2) -> Latent:
    return Latent(torch.full((4, 2, width), value), torch.zeros(4, 2, width))


def photo_set(repeats: list[int], widths: list[int] | None = None, seed: int = 0) -> PhotoSet:
    widths = widths or [2] * len(repeats)
    photos = [photo(f"{i}.png", n) for i, n in enumerate(repeats)]
    return PhotoSet(photos, [[latent(float(i), w)] for i, w in enumerate(widths)], seed, "instance")


def test_every_epoch_shows_each_photo_as_often_as_it_repeats() -> None:
    photos = photo_set([1, 3, 1])
    row = [index for step in range(10) for index in photos.indices(step, 4)]
    for epoch in range(8):
        assert Counter(row[epoch * 5 : (epoch + 1) * 5]) == {0: 1, 1: 3, 2: 1}
    assert len({tuple(row[e * 5 : e * 5 + 5]) for e in range(8)}) > 3  # epochs are shuffled anew


def test_a_step_depends_on_seed_and_number_only() -> None:
    forward = [photo_set([1] * 7).indices(step, 4) for step in range(9)]
    again = photo_set([1] * 7)
    assert [again.indices(step, 4) for step in reversed(range(9))] == forward[::-1]
    assert [photo_set([1] * 7, seed=1).indices(step, 4) for step in range(9)] != forward


def test_shapes_are_kept_apart_and_no_photo_is_lost() -> None:
    photos = photo_set([1] * 6, widths=[2, 3, 2, 3, 2, 3])
    batches = photos.batches(0, 6, 1, generator(0, "x"))
    assert sorted(len(batch) for batch in batches) == [3, 3]
    for batch in batches:
        assert len({index % 2 for index in batch.photos}) == 1
        assert batch.x0[:, 0, 0, 0].tolist() == [float(index) for index in batch.photos]
    assert sorted(i for batch in batches for i in batch.photos) == list(range(6))


def test_accumulation_cuts_a_step_in_parts() -> None:
    batches = photo_set([1] * 6).batches(0, 6, 3, generator(0, "x"))
    assert [len(batch) for batch in batches] == [2, 2, 2]


def test_latents_are_drawn_from_mean_and_deviation() -> None:
    spread = Latent(torch.full((1, 50, 50), 3.0), torch.full((1, 50, 50), 0.5))
    photos = PhotoSet([photo("a")], [[spread]], 0, "instance")
    first, second = (photos.batches(step, 1, 1, generator(0, step))[0].x0 for step in (0, 1))
    assert not torch.equal(first, second)
    assert abs(first.mean() - 3.0) < 0.05 and abs(first.std() - 0.5) < 0.05


def test_both_mirror_images_are_seen() -> None:
    photos = PhotoSet([photo("a")], [[latent(1.0), latent(-1.0)]], 0, "instance")
    seen = {photos.batches(step, 1, 1, generator(0, step))[0].x0[0, 0, 0, 0].item() for step in range(20)}
    assert seen == {1.0, -1.0}
