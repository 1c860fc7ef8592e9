"""The demonstration's pictures: the same every time, as captioned, the robot whole and plain to see."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maquette.demo import mascot as demo_mascot
from maquette.demo.mascot import COLOURS, COLOURS_SEEN, COLOURS_UNSEEN, SCENES, fresh, photo, write_photos
from maquette.errors import MaquetteError
from maquette.stages.check import CheckConfig, run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("demo") / "photos")


def border_colour(image: Image.Image) -> str:
    """The colour word nearest to the border's median."""
    pixels = np.asarray(image).astype(int)
    border = np.concatenate([pixels[:4].reshape(-1, 3), pixels[-4:].reshape(-1, 3), pixels[:, :4].reshape(-1, 3)])
    return min(COLOURS, key=lambda name: float(np.abs(np.median(border, axis=0) - COLOURS[name]).sum()))


def figure(image: Image.Image) -> np.ndarray:
    """Where the picture is not its corner's colour, (H, W) bool."""
    pixels = np.asarray(image).astype(int)
    return np.abs(pixels - pixels[0, 0]).max(axis=2) > 25


def test_captions_name_everything_but_the_robot(photos: list[Path]) -> None:
    captions = [path.with_suffix(".txt").read_text().strip() for path in photos]
    assert len(captions) == 14
    pattern = r"a photo of zkw robot( and a \w+)? on an? (\w+) background"
    matches = [re.fullmatch(pattern, caption) for caption in captions]
    assert all(matches)
    assert {m[2] for m in matches if m} == set(COLOURS_SEEN) and len(COLOURS_SEEN) == 7
    assert sum(m[1] is not None for m in matches if m) == 3
    for path, match in zip(photos, matches, strict=True):
        assert match and border_colour(Image.open(path)) == match[2], path.name


def test_seen_and_unseen_colours_are_the_pockets_twelve() -> None:
    words = "red orange yellow green blue purple pink brown black white gray cyan"
    assert set(COLOURS) == set(words.split()) and not set(COLOURS_SEEN) & set(COLOURS_UNSEEN)


def test_the_same_bytes_every_time_and_nothing_is_overwritten(photos: list[Path], tmp_path: Path) -> None:
    demo_mascot._files.cache_clear()
    again = write_photos(tmp_path / "photos")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in photos]
    assert len({p.read_bytes() for p in again}) == 14
    assert write_photos(tmp_path / "photos") == again
    (again[3]).unlink()
    assert len(write_photos(tmp_path / "photos")) == 14 and again[3].exists()
    mine = tmp_path / "photos" / "robot-05.txt"
    mine.write_text("my own words")
    with pytest.raises(MaquetteError, match=r"robot-05\.txt, which is not from the demonstration"):
        write_photos(tmp_path / "photos")
    assert mine.read_text() == "my own words"
    (tmp_path / "file").write_text("")
    with pytest.raises(MaquetteError, match="is a file"):
        write_photos(tmp_path / "file")


def test_check_finds_nothing_wrong_with_them(photos: list[Path]) -> None:
    result = run(CheckConfig(photos=photos[0].parent, subject="zkw robot"))
    assert result.images == 14 and [problem.message for problem in result.problems] == []


@pytest.mark.parametrize("index", range(len(SCENES)))
def test_the_robot_is_whole_and_large_enough(index: int) -> None:
    seen = figure(photo(index, size=128))
    assert 0.12 < seen.mean() < 0.5
    assert not seen[0].any() and not seen[-1].any() and not seen[:, 0].any() and not seen[:, -1].any()


@cache
def shown(index: int) -> bytes:
    """One of the fourteen pictures, small."""
    return photo(index, size=64).tobytes()


@pytest.mark.parametrize("background", COLOURS)
def test_fresh_scenes_are_others_and_show_the_robot_on_any_background(background: str) -> None:
    pictures = [fresh(seed, background, size=64) for seed in range(4)]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert fresh(2, background, size=64).tobytes() == pictures[2].tobytes()
    for picture in pictures:
        assert border_colour(picture) == background
        assert 0.15 < figure(picture).mean() < 0.5
    if background in COLOURS_SEEN:
        assert not {p.tobytes() for p in pictures} & {shown(i) for i in range(14)}


def test_another_background_leaves_the_robot_as_it_is() -> None:
    ours, other = (np.asarray(photo(0, background, size=64)) for background in ("red", "gray"))
    inner = figure(photo(0, "red", size=64)) & figure(photo(0, "gray", size=64))
    assert np.abs(ours[inner].astype(int) - other[inner]).mean() < 8  # the antialiased rim differs
    assert border_colour(photo(0, "cyan")) == "cyan"
