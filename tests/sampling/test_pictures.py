"""Pictures before and after drawing: resize modes, masks, fill, outpainting, preprocessors."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from maquette.data.images import read_photo
from maquette.errors import MaquetteError
from maquette.sampling.pictures.edges import canny
from maquette.sampling.pictures.fitting import fitted
from maquette.sampling.pictures.masks import blurred, box_of, read_mask, surroundings
from maquette.sampling.pictures.outpainting import extended, read_sides
from maquette.sampling.pictures.preprocessors import PREPROCESSORS, preprocess
from maquette.sampling.pictures.repainting import repainting


def halves(width: int = 80, height: int = 40) -> Image.Image:
    """Left half red, right half blue."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste((0, 0, 255), (width // 2, 0, width, height))
    return picture


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_resize_modes() -> None:
    picture = halves(80, 40)
    just, crop, fill = (np.asarray(fitted(picture, 32, 32, mode)) for mode in ("just", "crop", "fill"))
    assert just.shape == crop.shape == fill.shape == (32, 32, 3)
    for made in (just, crop, fill):
        assert made[16, 2].tolist() == [255, 0, 0] and made[16, 29].tolist() == [0, 0, 255]
    # crop covers: 64 x 32, of which the middle 32 columns; fill fits: 32 x 16 in the middle, drawn out up and down
    marked = picture.copy()
    marked.paste((0, 255, 0), (0, 0, 80, 8))  # the upper fifth is green
    assert np.asarray(fitted(marked, 32, 32, "crop"))[3, 16].tolist() == [0, 255, 0]
    filled = np.asarray(fitted(marked, 32, 32, "fill"))
    assert (filled[:9] == [0, 255, 0]).all() and filled[14, 2].tolist() == [255, 0, 0]
    assert fitted(picture, 80, 40, "fill") is picture
    assert fitted(picture, 32, 32, "latent") is picture


@pytest.mark.parametrize("mode", ["just", "crop", "fill"])
@pytest.mark.parametrize("size", [(33, 64), (64, 33), (7, 90), (90, 7), (1, 1)])
def test_resize_modes_of_odd_sizes(mode: str, size: tuple[int, int]) -> None:
    assert fitted(noise(*size), 40, 24, mode).size == (40, 24)  # type: ignore[arg-type]


def test_masks_of_files_and_of_transparency(tmp_path: Path) -> None:
    picture = noise(20, 10).convert("RGBA")
    hole = Image.new("L", (20, 10), 255)
    hole.paste(0, (2, 3, 6, 8))
    picture.putalpha(hole)
    picture.save(tmp_path / "hole.png")
    white = Image.new("L", (20, 10))
    white.paste(255, (2, 3, 6, 8))
    white.save(tmp_path / "mask.png")
    drawn = Image.new("RGBA", (20, 10))  # as A1111's page sends it: what was painted is opaque
    drawn.paste((0, 0, 0, 255), (2, 3, 6, 8))
    drawn.save(tmp_path / "drawn.png")
    photo = read_photo(tmp_path / "hole.png")
    for mask in ("transparency", str(tmp_path / "mask.png"), str(tmp_path / "drawn.png")):
        assert read_mask(mask, photo, "hole.png").getbbox() == (2, 3, 6, 8), mask
    inverted = np.asarray(read_mask("transparency", photo, "hole.png", invert=True))
    assert inverted[5, 4] == 0 and inverted[0, 0] == 255


def test_masks_at_fault(tmp_path: Path) -> None:
    noise(20, 10).save(tmp_path / "photo.png")
    photo = read_photo(tmp_path / "photo.png")
    for size, name in ((20, 20), "large.png"), ((20, 10), "black.png"):
        Image.new("L", size).save(tmp_path / name)
    with pytest.raises(MaquetteError, match=r"large\.png is a mask of 20 x 20 pixels and photo\.png has 20 x 10: save"):
        read_mask(str(tmp_path / "large.png"), photo, "photo.png")
    with pytest.raises(MaquetteError, match=r"black\.png of photo\.png marks no pixel"):
        read_mask(str(tmp_path / "black.png"), photo, "photo.png")
    with pytest.raises(MaquetteError, match=r"photo\.png has no transparent part to paint anew"):
        read_mask("transparency", photo, "photo.png")


def test_blur_is_a_gaussian() -> None:
    point = np.zeros((41, 41), np.uint8)
    point[20, 20] = 255
    wide = np.asarray(blurred(Image.fromarray(np.full((41, 41), 200, np.uint8)), 4))
    assert (wide == 200).all()  # borders do not darken
    edge = np.zeros((41, 41), np.uint8)
    edge[:, 20:] = 255
    row = np.asarray(blurred(Image.fromarray(edge), 4))[20].astype(float) / 255
    assert row[:10].max() == 0 and row[30:].min() == 1  # the kernel reaches 10 pixels
    assert row[23] == pytest.approx(0.8087, abs=0.01)  # Φ(3.5 / 4) with the tails beyond 2.5 σ cut off
    assert np.asarray(blurred(Image.fromarray(point), 0))[20, 20] == 255


def test_box_of_the_masked_part() -> None:
    mask = Image.new("L", (200, 100))
    mask.paste(255, (50, 40, 70, 50))
    assert box_of(mask, 0, 20, 10) == (50, 40, 70, 50)
    assert box_of(mask, 4, 64, 64) == (46, 31, 74, 59)
    assert box_of(mask, 4, 28, 18) == (46, 36, 74, 54)
    assert box_of(mask, 500, 64, 64) == (0, 0, 200, 100)
    corner = Image.new("L", (200, 100))
    corner.paste(255, (190, 0, 200, 40))
    assert box_of(corner, 0, 64, 64) == (160, 0, 200, 40)


def test_fill_takes_the_colours_around() -> None:
    picture = halves(128, 64)
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(picture).rectangle((20, 20, 40, 40), fill="lime")
    mask.paste(255, (18, 18, 43, 43))
    filled = np.asarray(surroundings(picture, mask))
    assert filled[30, 30, 0] > 200 and filled[30, 30, 1] < 10  # no green, mostly the red around
    outside = np.asarray(mask) == 0
    assert (filled[outside] == np.asarray(picture)[outside]).all()


@pytest.mark.parametrize("only_masked", [False, True])
def test_unmasked_pixels_keep_their_bytes(only_masked: bool) -> None:
    picture = noise(96, 64)
    mask = Image.new("L", picture.size)
    mask.paste(255, (40, 20, 60, 40))
    made = repainting(picture, mask, 96, 64, blur=2, content="fill", only_masked=only_masked, padding=8)
    assert made.picture.size == made.mask.size == (96, 64)
    result = np.asarray(made.pasted(Image.new("RGB", (96, 64), "white")))
    assert result.shape == (64, 96, 3)
    assert (result[28:32, 48:52] == 255).all()
    far = np.ones((64, 96), bool)
    far[15:45, 35:65] = False  # blur 2 reaches 5 pixels
    assert (result[far] == np.asarray(picture)[far]).all()


def test_outpainting() -> None:
    sides = read_sides(["left=16", "bottom=8,top=8"])
    assert sides == {"left": 16, "bottom": 8, "top": 8}
    picture, mask = extended(noise(32, 24), sides, overlap=2)
    assert picture.size == mask.size == (48, 40)
    marked = np.asarray(mask)
    assert (marked[10:30, 18:] == 0).all() and (marked[:10] == 255).all() and (marked[30:] == 255).all()
    assert (marked[:, :18] == 255).all()
    assert (np.asarray(picture)[8:32, 16:] == np.asarray(noise(32, 24))).all()
    assert (np.asarray(picture)[8:32, 0] == np.asarray(noise(32, 24))[:, 0]).all()
    for text in ("up=3", "left", "left=-2", "left=0", "left=99999"):
        with pytest.raises(MaquetteError, match=r"--extend .* is not possible: write a side and pixels"):
            read_sides([text])


@pytest.mark.parametrize(
    ("low", "high", "edges", "checksum"),
    [
        (100, 200, 1533, 1162133502),
        (200, 100, 1533, 1162133502),
        (30, 80, 1558, 1265856090),
        (600, 900, 723, 3061937771),
    ],
)
def test_canny_equals_opencv(low: float, high: float, edges: int, checksum: int) -> None:
    """Recorded from cv2.Canny of opencv-python-headless 5.0.0.93."""
    small = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    found = canny(small.repeat(8, 0).repeat(8, 1), low, high)
    assert ((found > 0).sum(), zlib.crc32(found.tobytes())) == (edges, checksum)


def test_canny_finds_the_outline_of_a_square() -> None:
    picture = np.zeros((32, 32), np.uint8)
    picture[8:24, 8:24] = 200
    edges = canny(picture, 100, 200)
    assert set(np.unique(edges)) == {0, 255}
    ys, xs = np.nonzero(edges)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (7, 23, 7, 23) or (ys.min(), ys.max()) == (8, 24)
    assert edges[12:20, 12:20].max() == 0 and edges[:6].max() == 0
    assert 50 <= (edges > 0).sum() <= 70  # one pixel wide
    weak = picture // 10
    assert canny(weak, 100, 200).max() == 0
    assert canny(weak, 10, 30).max() == 255


def test_weak_edges_count_where_they_go_on_from_strong_ones() -> None:
    picture = np.zeros((20, 60), np.uint8)
    picture[10:, :30], picture[10:, 30:] = 80, 30  # |g| 320 and 120
    assert canny(picture, 100, 200)[8:12, 50].max() == 255
    assert canny(picture, 130, 200)[8:12, 50].max() == 0
    picture[:, 28:34] = 0  # apart from each other
    assert canny(picture, 100, 200)[8:12, 50].max() == 0 or canny(picture, 100, 200)[8:12, 31].max() > 0


def test_preprocessors_keep_the_size_and_do_what_they_say() -> None:
    picture = halves(96, 64)
    made = {name: np.asarray(preprocess(picture, name)) for name in PREPROCESSORS}
    assert {array.shape for array in made.values()} == {(64, 96, 3)}
    assert (made["none"] == np.asarray(picture)).all()
    assert (made["invert"] == 255 - np.asarray(picture)).all()
    assert made["canny"][32, 40:56].max() == 255 and made["canny"][:, :30].max() == 0
    lined = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(lined).line((48, 0, 48, 63), fill="black", width=3)
    scribbled = np.asarray(preprocess(lined, "scribble"))
    assert (scribbled[:, 48] == 255).all() and scribbled[:, :38].max() == 0
    assert len({tuple(p) for p in made["colour"].reshape(-1, 3)}) <= 2
    assert set(np.unique(np.asarray(preprocess(noise(8, 8), "threshold", 100)))) == {0, 255}
    assert 20 < made["blur"][32, 50, 0] < 235
    with pytest.raises(
        MaquetteError, match=r"no preprocessor 'cany'. Did you mean 'canny'\? Preprocessors: none, canny"
    ):
        preprocess(picture, "cany")
