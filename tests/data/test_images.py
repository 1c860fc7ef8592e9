"""Every kind of file that lies in photo folders becomes upright 8-bit sRGB, or an error that says why not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from maquette.data.images import find_photos, open_photo, read_photo
from maquette.errors import MaquetteError

MakeImage = Callable[..., Image.Image]


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    width, height = image.size
    return [image.getpixel((x, y)) for y in (5, height - 5) for x in (5, width - 5)]  # type: ignore[misc]


EXPECTED = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (128, 128, 128)]


def near(found: list[tuple[int, ...]], expected: list[tuple[int, ...]], tolerance: int) -> bool:
    return bool(np.abs(np.array(found, int) - np.array(expected, int)).max() <= tolerance)


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "heic", "heif", "avif"])
def test_every_promised_format_is_found_in_any_case_and_decoded(
    tmp_path: Path, kind: str, quadrants: MakeImage
) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    plain = tmp_path / f"picture.{kind}"
    quadrants().save(plain, quality=95, **({"format": "JPEG"} if kind.startswith("j") else {}))
    mixed = tmp_path / f"Other.{kind.capitalize()}"
    mixed.write_bytes(plain.read_bytes())
    assert find_photos(tmp_path) == sorted([plain, mixed])
    image = open_photo(mixed)
    assert (image.mode, image.size) == ("RGB", (80, 60))
    assert near(corners(image), EXPECTED, 14)


def test_find_photos_follows_links_once_and_skips_hidden_files(tmp_path: Path, quadrants: MakeImage) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    quadrants().save(tmp_path / "a" / "b" / "été.PNG")
    quadrants().save(tmp_path / "a" / "._macos.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "link.jpg").symlink_to(tmp_path / "a" / "b" / "été.PNG")
    assert [p.relative_to(tmp_path).as_posix() for p in find_photos(tmp_path)] == ["a/b/été.PNG", "a/link.jpg"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_come_out_upright(tmp_path: Path, orientation: int, quadrants: MakeImage) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants() if orientation == 1 else quadrants().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.jpg", exif=exif, quality=95)
    photo = read_photo(tmp_path / "p.jpg")
    assert photo.image.size == (80, 60)
    assert near(corners(photo.image), EXPECTED, 8)
    assert (photo.notes == ()) == (orientation == 1)


def test_cmyk_sixteen_bits_and_palette(fault_folder: Path) -> None:
    assert near(corners(open_photo(fault_folder / "cmyk.jpg")), EXPECTED, 8)
    ramp = np.asarray(open_photo(fault_folder / "sixteen.png"))
    assert ramp.shape == (60, 80, 3)
    assert (ramp[0, 0] == 0).all() and (ramp[-1, -1] == 255).all()
    assert abs(int(ramp[30, 0, 0]) - 128) <= 1  # scaled, not clipped at 255
    palette = read_photo(fault_folder / "palette.png")
    assert near(corners(palette.image), [*EXPECTED[:3], (255, 255, 255)], 2)
    assert palette.alpha is not None and palette.alpha.getpixel((79, 59)) == 0 and palette.alpha.getpixel((1, 1)) == 255
    assert "transparent parts became white" in palette.notes


def test_transparency_is_laid_on_white_and_opaque_alpha_is_none(tmp_path: Path, quadrants: MakeImage) -> None:
    half = quadrants().convert("RGBA")
    half.putalpha(128)
    half.save(tmp_path / "half.png")
    assert near(corners(open_photo(tmp_path / "half.png"))[:1], [(237, 142, 142)], 1)
    quadrants().convert("RGBA").save(tmp_path / "full.png")
    photo = read_photo(tmp_path / "full.png")
    assert photo.alpha is None and photo.notes == () and corners(photo.image) == EXPECTED
    grey = Image.new("LA", (20, 20), (100, 255))
    grey.putpixel((0, 0), (100, 0))
    grey.save(tmp_path / "grey.png")
    assert open_photo(tmp_path / "grey.png").getpixel((15, 15)) == (100, 100, 100)
    assert open_photo(tmp_path / "grey.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 257, 65535)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    image = open_photo(tmp_path / "deep.png")
    assert [image.getpixel((0, 0)), image.getpixel((1, 0))] == [(255, 128, 0), (0, 1, 255)]


def swapped_profile() -> bytes:
    """sRGB with the red and green colorants exchanged: reading a picture through it must exchange the channels."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    at = {bytes(data[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    text = b"sRGB built-in".decode().encode("utf-16-be")
    return bytes(data).replace(text, "Swapped sRGB!".encode("utf-16-be"))


def test_icc_profile_is_applied(tmp_path: Path, quadrants: MakeImage) -> None:
    quadrants().save(tmp_path / "p.png", icc_profile=swapped_profile())
    photo = read_photo(tmp_path / "p.png")
    assert near(corners(photo.image), [(30, 220, 30), (200, 30, 30), (30, 30, 220), (128, 128, 128)], 3)
    assert any("to sRGB" in note for note in photo.notes)


def test_srgb_profile_changes_nothing_and_a_damaged_one_is_ignored_with_a_note(
    tmp_path: Path, quadrants: MakeImage
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    quadrants().save(tmp_path / "srgb.png", icc_profile=srgb)
    photo = read_photo(tmp_path / "srgb.png")
    assert corners(photo.image) == EXPECTED and photo.notes == ()
    quadrants().save(tmp_path / "bad.png", icc_profile=b"not a profile at all" * 10)
    photo = read_photo(tmp_path / "bad.png")
    assert corners(photo.image) == EXPECTED and "damaged and was ignored" in photo.notes[0]
    quadrants().convert("L").save(tmp_path / "grey.png", icc_profile=srgb)
    photo = read_photo(tmp_path / "grey.png")
    assert "does not fit" in photo.notes[0]


def test_a_gif_of_one_frame_is_no_photo_either(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 0, 0)).save(tmp_path / "still.gif")
    with pytest.raises(MaquetteError, match=r"still\.gif is a GIF; save it as PNG or JPEG\."):
        read_photo(tmp_path / "still.gif")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "is damaged and cannot be decoded (the file is cut off)"),
        ("empty.png", "is empty (0 bytes)"),
        ("notes.jpg", "is not a picture: it holds text"),
        ("moving.gif", "is an animated GIF; save the frame you want as PNG or JPEG"),
    ],
)
def test_bad_files_are_refused_by_name_and_reason(fault_folder: Path, name: str, reason: str) -> None:
    with pytest.raises(MaquetteError) as caught:
        read_photo(fault_folder / name)
    assert str(caught.value).startswith(f"{name} {reason}")


def test_animated_webp_under_a_photo_name(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(tmp_path / "live.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(MaquetteError, match=r"live\.webp is an animated WEBP \(2 frames\)"):
        read_photo(tmp_path / "live.webp")


def test_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)), (b"IDAT", b"x"), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(MaquetteError, match=r"bomb\.png unpacks to 3600 million pixels"):
        read_photo(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(40), "it is a zip archive"),
        (b"%PDF-1.7" + bytes(40), "it is a PDF"),
        (b"<!DOCTYPE html><html>not found</html>", "it is a web page"),
        (b"\xff\xd8", "it has only 2 bytes"),
        (b"RIFF\0\0\0\0WAVEfmt " + bytes(40), "its content is of no picture format"),
        (bytes(range(256)), "its content is of no picture format"),
        ("Größe".encode() * 100, "it holds text"),
    ],
)
def test_what_an_impostor_is(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(MaquetteError, match=f"x.jpg is not a picture: {reason}"):
        read_photo(tmp_path / "x.jpg")


def test_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(MaquetteError, match=r"gone\.jpg cannot be read: No such file"):
        read_photo(tmp_path / "gone.jpg")


def test_multi_picture_jpeg_of_phones_is_read(tmp_path: Path, quadrants: MakeImage) -> None:
    quadrants().save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[quadrants()], quality=95)
    assert near(corners(open_photo(tmp_path / "phone.jpg")), EXPECTED, 8)
