"""Picture sheets: what stands where, and labels that keep their size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maquette.report.sheet import GAP, PAPER, sheet

COLOURS = [(200, 0, 0), (0, 160, 0), (0, 0, 220), (200, 200, 0), (0, 200, 200)]


def squares(count: int = 5, size: int = 20) -> list[Image.Image]:
    return [Image.new("RGB", (size, size), colour) for colour in COLOURS[:count]]


def boxes(page: Image.Image, count: int = 5) -> list[tuple[int, int, int, int]]:
    """left, top, right, bottom of each colour's pixels."""
    pixels = np.asarray(page)
    found = []
    for colour in COLOURS[:count]:
        y, x = np.nonzero((pixels == colour).all(axis=2))
        found.append((int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1))
    return found


def test_pictures_lie_row_after_row_and_a_place_without_one_is_empty() -> None:
    page = sheet(squares(), 3)
    step = 20 + GAP
    assert page.size == (3 * step + GAP, 2 * step + GAP)
    assert boxes(page)[0] == (GAP, GAP, GAP + 20, GAP + 20)
    assert boxes(page)[4] == (GAP + step, GAP + step, GAP + step + 20, GAP + step + 20)
    assert page.getpixel((GAP + 2 * step + 5, GAP + step + 5)) == PAPER


def test_zoom_enlarges_the_pictures_and_not_the_letters() -> None:
    def letters(zoom: int) -> int:
        """Height of the band above the first picture."""
        return boxes(sheet(squares(1, 60), 1, labels_top=["cat"], zoom=zoom), 1)[0][1]

    left, top, right, bottom = boxes(sheet(squares(1, 60), 1, zoom=3), 1)[0]
    assert (right - left, bottom - top) == (180, 180)
    assert letters(1) == letters(4) > 20


def test_labels_stand_over_their_column_and_beside_their_row() -> None:
    page = sheet(squares(4, 100), 2, labels_top=["", "word"], labels_left=["", "row"], title="Title")
    dark = np.asarray(page).max(axis=2) < 120  # letters only: every colour used here has a channel of at least 160
    first, second, third, _ = boxes(page, 4)
    over = dark[: first[1]]
    title_free = over[first[1] - 24 :]  # the line just above the pictures
    assert title_free[:, second[0] : second[2]].any() and not title_free[:, : second[0] - GAP].any()
    assert over[:24].any()  # the title
    beside = dark[:, : first[0]]
    assert beside[third[1] :].any() and not beside[first[1] : first[3]].any()


def test_long_labels_wrap_within_their_column_and_end_in_an_ellipsis() -> None:
    page = sheet(squares(2, 100), 2, labels_top=["word " * 200, "x" * 300])
    first, second = boxes(page, 2)
    dark = np.asarray(page).max(axis=2) < 120
    assert dark[: first[1], first[0] : first[2]].any() and not dark[: first[1], first[2] + 1 : second[0] - 1].any()
    assert page.size[0] == 2 * (100 + GAP) + GAP and first[1] < 150


def test_a_name_too_wide_breaks_behind_its_joints() -> None:
    broken, spaced = (
        sheet(squares(1, 100), 1, labels_top=[text])
        for text in ("caption_extension-prior_preservation", "caption_ extension- prior_ preservation")
    )
    assert broken.tobytes() == spaced.tobytes()


def test_sizes_and_modes_may_differ() -> None:
    page = sheet([Image.new("L", (40, 40), 77), Image.new("RGBA", (20, 10), (*COLOURS[0], 255))], 2)
    left, top, right, bottom = boxes(page, 1)[0]
    assert (right - left, bottom - top) == (20, 10)
    assert (left, top) == (GAP + 40 + GAP + 10, GAP + 15)
    assert page.getpixel((GAP + 1, GAP + 1)) == (77, 77, 77)


def test_numbers_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match="2 labels_top for 3"):
        sheet(squares(), 3, labels_top=["a", "b"])
    with pytest.raises(ValueError, match="3 labels_left for 2"):
        sheet(squares(), 3, labels_left=["a", "b", "c"])
    with pytest.raises(ValueError, match="needs pictures"):
        sheet([], 3)
