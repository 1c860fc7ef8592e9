"""Photos that run programs, fill the memory, never end, or are damaged where no decoder says so."""

from __future__ import annotations

import ast
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maquette.data.images import find_photos, open_photo, read_photo
from maquette.errors import MaquetteError
from maquette.formats import jpeg, pictures

MakeImage = Callable[..., Image.Image]
HUNG = 1800  # seconds that only what hangs takes, however busy the machine is
SOURCE = Path(__file__).parent.parent.parent / "src" / "maquette"


def png(path: Path, width: int, height: int, bits: int, colour: int = 0) -> Path:
    """A PNG of zeros, packed to almost nothing."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + (width * bits * channels + 7) // 8)
    packer = zlib.compressobj(9)
    many = max(1, (1 << 20) // len(row))
    data = b"".join(packer.compress(row * min(many, height - y)) for y in range(0, height, many)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_postscript_under_a_photo_name_is_refused_and_no_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"
    for name in ("a.jpg", "b.PNG", "c.heic"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MaquetteError, match=rf"^{name} is not a picture that can be read \(EPS\); save it as PNG"):
            read_photo(tmp_path / name)
    (tmp_path / "dos.jpg").write_bytes(b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(content), 0, 0, 0, 0) + content)
    with pytest.raises(MaquetteError, match=r"\(EPS\)"):
        read_photo(tmp_path / "dos.jpg")
    assert started == []


@pytest.mark.parametrize(
    ("kind", "told"), [("TIFF", "TIFF"), ("ICO", "ICO"), ("JPEG2000", "JPEG 2000"), ("GIF", "GIF"), ("PPM", "picture")]
)
def test_only_promised_formats_are_opened_whatever_the_name(
    tmp_path: Path, quadrants: MakeImage, kind: str, told: str
) -> None:
    quadrants().save(tmp_path / "a.other", format=kind)
    (tmp_path / "a.other").rename(tmp_path / "a.jpg")
    with pytest.raises(MaquetteError, match=rf"^a\.jpg is (an? |not a picture).*{told}"):
        read_photo(tmp_path / "a.jpg")


def test_every_picture_is_opened_in_one_place_and_names_its_formats() -> None:
    calls = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open":
                text = ast.unparse(node.func.value)
                if text in ("Image", "pillow()", "PIL.Image", "Pillow"):
                    calls.append((path.name, "formats" in {k.arg for k in node.keywords}))
    assert calls == [("pictures.py", True)]
    assert set(pictures.FORMATS) == {"JPEG", "PNG", "WEBP", "BMP", "HEIF", "AVIF"}


def test_a_pipe_among_the_photos_is_named_and_not_waited_for(tmp_path: Path, quadrants: MakeImage) -> None:
    from maquette.data.layouts import read_folder

    for i in range(2):
        quadrants().save(tmp_path / f"{i}.png")
    os.mkfifo(tmp_path / "x.png")
    told: list[str] = []
    reading = threading.Thread(
        target=lambda: told.extend(p.message for p in read_folder(tmp_path, "zkw robot").problems), daemon=True
    )
    reading.start()
    reading.join(timeout=HUNG)
    assert not reading.is_alive()
    assert any("x.png is a named pipe (FIFO), not an ordinary file; it was not read." in line for line in told)


def test_twenty_gigabytes_of_holes_are_refused_by_their_size(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(20_000_000_000)
    with pytest.raises(MaquetteError, match=r"^x\.png is larger than any photo \(500 MB at most\)"):
        read_photo(tmp_path / "x.png")


def test_a_thin_or_huge_picture_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"thin\.png has a side of 100000 pixels \(65535 at most\)"):
        read_photo(png(tmp_path / "thin.png", 1, 100_000, 1))
    with pytest.raises(MaquetteError, match=r"big\.png unpacks to 256 million pixels"):
        read_photo(png(tmp_path / "big.png", 16_000, 16_000, 8))
    Image.new("L", (8000, 7000)).save(tmp_path / "big.webp", method=0)
    with pytest.raises(MaquetteError, match=r"big\.webp has 56 million pixels; as WEBP they need more memory"):
        read_photo(tmp_path / "big.webp")


@pytest.mark.parametrize(("bits", "colour"), [(16, 0), (8, 2), (1, 0), (8, 6)])
def test_hundred_megapixels_are_read_within_a_gigabyte(tmp_path: Path, bits: int, colour: int) -> None:
    side = 9_000 if colour == 6 else 10_000
    path = png(tmp_path / "a.png", side, side, bits, colour)
    assert path.stat().st_size < 1_000_000
    # In a process of its own, all memory counted; getrusage would count what was forked off too.
    code = (
        "from maquette.data.images import read_photo\n"
        "from maquette.errors import MaquetteError\n"
        "try:\n"
        f"    photo = read_photo({str(path)!r})\n"
        "    print(photo.image.size, photo.notes)\n"
        "except MaquetteError as error:\n"
        "    print(error)\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, peak = done.stdout.splitlines()
    assert int(peak) < 1_000_000, f"{peak} KiB: {told}"
    assert f"({side // 2}, {side // 2})" in told[0] and "read at 1/2 of its size" in told[0]


def test_a_camera_jpeg_of_two_hundred_megapixels_is_read_at_half_its_size(tmp_path: Path) -> None:
    Image.new("L", (16_320, 12_240), 128).save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.image.size == (8160, 6120) and photo.image.getpixel((5, 5)) == (128, 128, 128)
    assert photo.notes == ("read at 1/2 of its size: it has 200 million pixels",)


def test_reducing_keeps_orientation_colour_and_transparency(
    tmp_path: Path, quadrants: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PHOTO_WHOLE", 1500)
    exif = Image.Exif()
    exif[0x0112] = 6
    quadrants().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    half = quadrants().convert("RGBA")
    half.putalpha(128)
    half.save(tmp_path / "clear.png")
    quadrants().quantize(8).save(tmp_path / "palette.png")
    for name in ("turned.jpg", "palette.png", "clear.png"):
        photo = read_photo(tmp_path / name)
        assert photo.image.size == (40, 30) and photo.image.mode == "RGB"
        red, green, blue = photo.image.getpixel((3, 3))  # type: ignore[misc]
        assert red > 200 and green < 170 and blue < 170 and abs(green - blue) < 12
    assert read_photo(tmp_path / "clear.png").alpha.getpixel((3, 3)) == 128  # type: ignore[union-attr]


def noisy(path: Path, **options: object) -> bytes:
    noise = np.random.default_rng(0).normal(128, 40, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(path, "JPEG", **options)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("random", {}),
        ("random", {"progressive": True}),
        ("random", {"restart_marker_blocks": 4}),
        ("random", {"subsampling": 0}),
        ("zeros", {}),
        ("zeros", {"restart_marker_blocks": 4}),  # in a progressive file they may be data
        ("zeros", {"subsampling": 0}),
    ],
)
def test_a_jpeg_garbled_in_its_middle_is_noticed(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    data = bytearray(noisy(tmp_path / "a.jpg", quality=90, **options))
    assert read_photo(tmp_path / "a.jpg").notes == ()
    middle = len(data) // 2
    garbage = np.random.default_rng(1).bytes(2000) if kind == "random" else bytes(2000)
    data[middle : middle + 2000] = garbage
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(MaquetteError, match=r"^a\.jpg is damaged: (its data are garbled|a part of its data is blank)"):
        read_photo(tmp_path / "a.jpg")


def test_plain_areas_and_what_phones_put_behind_a_jpeg_are_no_damage(tmp_path: Path) -> None:
    for options in ({}, {"optimize": True}, {"progressive": True}, {"quality": 1}, {"restart_marker_rows": 1}):
        for colour in ("black", "white", (128, 128, 128)):
            Image.new("RGB", (900, 900), colour).save(tmp_path / "a.jpg", **options)
            assert jpeg.fault((tmp_path / "a.jpg").read_bytes()) == ""
    whole = noisy(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").write_bytes(whole + b"\xff\x17 maker's own data " + bytes(5000))
    assert open_photo(tmp_path / "b.jpg").size == (300, 200)
    (tmp_path / "b.jpg").write_bytes(whole[:-2])
    with pytest.raises(MaquetteError, match="is damaged"):
        open_photo(tmp_path / "b.jpg")


def test_thumbnails_of_network_disks_are_no_photos(tmp_path: Path, quadrants: MakeImage) -> None:
    (tmp_path / "@eaDir" / "a.jpg").mkdir(parents=True)
    quadrants().save(tmp_path / "a.jpg")
    quadrants().save(tmp_path / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_XL.jpg")
    assert find_photos(tmp_path) == [tmp_path / "a.jpg"]


def test_a_strip_is_not_padded_to_a_square_of_its_length() -> None:
    from maquette.stages.captioners import square_bgr

    pixels = square_bgr(Image.new("RGB", (60_000, 2)), 32)
    assert pixels.shape == (1, 32, 32, 3) and pixels.max() == 255
