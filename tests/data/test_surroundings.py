"""What photos have in common is said of those that have it, and of no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maquette.data.doctor import Look, look_at
from maquette.data.images import OpenedPhoto
from maquette.data.layouts import read_folder
from maquette.data.surroundings import observations

WHITE, NAVY, LAWN, BRICK = (250, 250, 250), (20, 30, 120), (60, 160, 50), (150, 75, 40)


def say(folder: Path, *edges: tuple[int, int, int], side: int = 120) -> list[str]:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, colour in enumerate(edges):
        image = Image.new("RGB", (side + number, side), colour)
        middle = tuple(int(v) for v in random.integers(0, 255, 3))
        image.paste(middle, (side // 3, side // 3, side * 2 // 3, side * 2 // 3))
        image.save(folder / f"{number}.png")
    looks: dict[Path, Look] = {}

    def look(path: Path, opened: OpenedPhoto) -> None:
        looks[path] = look_at(opened)

    return observations(read_folder(folder, "zkw dog", look=look).of("instance"), looks)


def test_one_background_everywhere_is_named(tmp_path: Path) -> None:
    few, size, edges = say(tmp_path / "a", WHITE, WHITE, WHITE)
    assert few.startswith("3 photos are few")
    assert "about 120 no photo" in size and "the smallest is 0.png (120 x 120)" in size
    assert edges == (
        "The edges of all 3 photos have nearly one colour, white: name that background in their captions, "
        "or it becomes part of the subject."
    )
    assert "4 of 5 photos (0.png, 1.png, 2.png, 4.png)" in say(tmp_path / "b", NAVY, NAVY, NAVY, WHITE, NAVY)[-1]


def test_different_places_are_called_free(tmp_path: Path) -> None:
    assert say(tmp_path / "a", WHITE, NAVY, LAWN, BRICK)[-1].startswith("The surroundings have another colour in every")
    half = say(tmp_path / "b", LAWN, LAWN, WHITE, NAVY)[-1]
    assert half.startswith("The edges of 2 of 4 photos (0.png, 1.png) have nearly one colour, green; the others differ")


def test_enough_photos_are_not_called_few(tmp_path: Path) -> None:
    assert not any("few" in line for line in say(tmp_path / "a", *[WHITE, NAVY, LAWN, BRICK] * 2))


def test_a_single_photo_has_nothing_in_common(tmp_path: Path) -> None:
    lines = say(tmp_path / "a", BRICK)
    assert len(lines) == 2 and lines[0].startswith("1 photo is few")
