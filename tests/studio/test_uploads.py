"""Photos, texts and archives from a browser: what is kept, how it is called, and what is refused."""

import errno
import hashlib
import io
import stat
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette.studio import archives, photos
from tests.studio.conftest import photo_bytes

NAMES = [
    "..\\..\\x.jpg", "../../x.jpg", "C:\\x.jpg", "NUL", "CON.jpg", "x" * 300 + ".jpg", "\u202egpj.exe.jpg", "x.jpg.",
    "/etc/passwd", "a\nb.jpg", "",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_upload_names(studio: Any, name: str) -> None:
    project, data = studio.project(), photo_bytes(1)
    told = studio.upload(project, (name, data))
    folder = studio.studio.folder / "projects" / project
    kept = sorted(path.name for path in (folder / "photos").iterdir())
    if name == "":  # a field without a file
        assert not told["added"] and not kept
        return
    assert kept == [f"{hashlib.sha256(data).hexdigest()}.jpg"]
    shown = told["added"][0]["name"]
    assert len(shown) <= 120 and not set(shown) & set("/\\\n\u202e")


def test_a_photo_is_known_by_its_content(studio: Any) -> None:
    project = studio.project()
    told = studio.upload(project, ("a.png", photo_bytes(1)), ("b.jpg", photo_bytes(1)))
    assert [one["name"] for one in told["added"]] == ["a.png"]
    assert told["skipped"] == [{"name": "b.jpg", "message": "b.jpg is the same file as a.png, which is here already."}]
    file = studio.studio.store.project(project).photos()[0].file
    assert file.suffix == ".jpg" and file.read_bytes() == photo_bytes(1)


def test_texts_find_their_photos_in_any_order(studio: Any) -> None:
    project = studio.project()
    told = studio.upload(
        project, ("B.txt", b"a robot, \xef\xbf\xbdred"), ("a.jpg", photo_bytes(1)), ("b.JPG", photo_bytes(2))
    )
    assert told["captions"] == 1
    told = studio.upload(project, ("a.txt", "à la plage".encode("cp1252")), ("lost.txt", b"x"))
    assert told["captions"] == 1
    assert told["skipped"][0]["message"] == "lost.txt belongs to no photo here: its name is that of none."
    assert [one["caption"] for one in studio.client.get(f"/api/projects/{project}/photos").json()] == [
        "à la plage", "a robot, \ufffdred",
    ]  # fmt: skip


def test_rotated_and_exif_is_gone_from_what_is_shown(studio: Any) -> None:
    project = studio.project()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret place"
    data = photo_bytes(1, exif=exif)
    assert b"secret place" in data
    one = studio.upload(project, ("a.jpg", data))["added"][0]
    assert (one["width"], one["height"]) == (384, 512)
    assert "turned upright" in [problem["short"] for problem in one["problems"]]
    shown = studio.client.get(one["picture"])
    assert shown.headers["content-type"] == "image/webp" and b"secret" not in shown.content
    picture = Image.open(BytesIO(shown.content))
    assert picture.size == (384, 512) and not picture.getexif()


def test_heic(studio: Any) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    one = studio.upload(studio.project(), ("IMG_1.HEIC", photo_bytes(1, kind="HEIF")))["added"][0]
    assert (one["width"], one["height"]) == (512, 384)
    assert one["problems"][0]["short"] == "HEIC, understood"


BAD = {
    "a.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture"),
    "empty.jpg": (b"", "is empty (0 bytes)"),
    "cut.jpg": (photo_bytes(3)[:2000], "is damaged"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "it is a web page"),
    "pickle.png": (b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.", "is not a picture"),
    "tool.exe": (b"MZ", "is no photo; photos, text files and zip archives are taken"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_photo_is_named_and_not_kept(studio: Any, name: str) -> None:
    data, sentence = BAD[name]
    project = studio.project()
    told = studio.upload(project, (name, data), ("good.jpg", photo_bytes(1)))
    assert len(told["added"]) == 1 and sentence in told["skipped"][0]["message"]
    assert len(list((studio.studio.folder / "projects" / project / "photos").iterdir())) == 1
    assert not list((studio.studio.folder / "incoming").iterdir())


def test_polyglot_html_jpg(studio: Any) -> None:
    data = photo_bytes(1) + b"<script>alert(1)</script>"
    told = studio.upload(studio.project(), ("a.html.jpg", data))
    for one in told["added"]:
        answer = studio.client.get(one["picture"])
        assert answer.headers["content-type"] == "image/webp" and b"script" not in answer.content


def test_decompression_bomb(studio: Any) -> None:
    """A PNG that says 3,600,000,000 pixels in its head; they need not be there to be refused."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(10**6))), chunk(b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    told = studio.upload(studio.project(), ("bomb.png", bomb))
    assert told["added"] == [] and "pixels" in told["skipped"][0]["message"]


def test_too_large_is_counted_while_it_comes(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.studio import uploads

    monkeypatch.setattr(uploads, "MOST_BYTES", 3000)
    told = studio.upload(studio.project(), ("big.jpg", photo_bytes(1)), ("b.txt", b"x"))
    assert told["skipped"][0]["message"].startswith("big.jpg is larger than")


def test_a_full_disk_is_a_sentence(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from maquette.studio import uploads

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    project = studio.project()
    monkeypatch.setattr(uploads.Receiver, "_data", full)
    answer = studio.client.post(f"/api/projects/{project}/photos", files={"files": ("a.jpg", photo_bytes(1))})
    assert answer.status_code == 400
    assert answer.json() == {"error": "The upload could not be kept: No space left on device."}


def test_two_hundred_photos_and_no_more(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MOST_PHOTOS", 2)
    told = studio.upload(studio.project(), *[(f"{i}.jpg", photo_bytes(i, (64, 48))) for i in range(3)])
    assert len(told["added"]) == 2
    assert told["skipped"][0]["message"] == "2.jpg was not added: a project holds 2 photos; 10 to 50 are enough."


def archive(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files:
            made.writestr(name, data)
    return buffer.getvalue()


def test_an_archive_with_folders_and_texts(studio: Any) -> None:
    data = archive(
        ("set/one.jpg", photo_bytes(1)),
        ("set/one.txt", b"a robot"),
        ("__MACOSX/._one.jpg", b"x"),
        ("set/.DS_Store", b""),
    )
    told = studio.upload(studio.project(), ("photos.zip", data))
    assert (len(told["added"]), told["captions"], told["skipped"]) == (1, 1, [])


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:/x.jpg"])
def test_zip_slip(studio: Any, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("x.jpg"))
    told = studio.upload(studio.project(), ("a.zip", archive(("ok.jpg", photo_bytes(1)), (name, photo_bytes(2)))))
    assert told["added"] == []
    assert told["skipped"][0]["message"] == "a.zip holds a file that would lie outside of it; nothing of it was used."
    assert set(tmp_path.rglob("x.jpg")) == before


def test_a_link_in_an_archive(studio: Any) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    told = studio.upload(studio.project(), ("a.zip", archive((link, b"/etc/passwd"))))
    assert told["skipped"][0]["message"] == "a.zip holds a link; nothing of it was used."


def test_zip_bomb(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = studio.upload(studio.project(), ("a.zip", archive(("a.jpg", b"\0" * 5_000_000))))
    assert told["skipped"][0]["message"] == "a.zip unpacks to more than 100 times its size; it was not used."
    told = studio.upload(studio.project(), ("b.zip", archive(("inner.zip", archive(("a.jpg", b"x"))))))
    assert told["skipped"][0]["message"] == "b.zip holds another archive; unpack it first."
    told = studio.upload(studio.project(), ("c.zip", archive(*[(f"{i}.jpg", b"") for i in range(1001)])))
    assert told["skipped"][0]["message"] == "c.zip holds 1001 files; at most 1000 are taken."
    monkeypatch.setattr(archives, "MOST_WHOLE", 1000)
    told = studio.upload(studio.project(), ("d.zip", archive(("a.jpg", photo_bytes(1)))))
    assert "unpacks to more than" in told["skipped"][0]["message"]


def test_a_broken_archive(studio: Any) -> None:
    data = archive(("a.jpg", photo_bytes(1)))
    told = studio.upload(studio.project(), ("a.zip", data[:-30]))
    assert told["skipped"][0]["message"] == "a.zip is no zip archive that can be read; pack it again."


def test_a_body_that_is_cut_off_keeps_nothing(studio: Any) -> None:
    project = studio.project()
    kind = "multipart/form-data; boundary=xyz"
    body = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n' + photo_bytes(1)[:100]
    for content in (body, b"no multipart at all", b"--xyz\r\nbroken\r\n\r\n"):
        answer = studio.client.post(f"/api/projects/{project}/photos", content=content, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400)
    answer = studio.client.post(
        f"/api/projects/{project}/photos", content=b"", headers={"Content-Type": "multipart/form-data"}
    )
    assert answer.status_code in (400, 415)
    assert studio.client.get(f"/api/projects/{project}/photos").json() == []
    assert not list((studio.studio.folder / "incoming").iterdir())


def test_a_stream_of_many_pieces(studio: Any) -> None:
    project, data = studio.project(), photo_bytes(5)
    head = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'
    stream = io.BytesIO(head + data + b"\r\n--xyz--\r\n")
    pieces = iter(lambda: stream.read(7), b"")
    answer = studio.client.post(
        f"/api/projects/{project}/photos", content=pieces, headers={"Content-Type": "multipart/form-data; boundary=xyz"}
    )
    assert len(answer.json()["added"]) == 1
