"""Every fault at once in one folder: `check` names each with its photo, and nothing else."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from maquette.stages.check import CheckConfig, run
from tests import scenes


def scene(seed: int, width: int = 700, height: int = 700) -> Image.Image:
    return scenes.scene(1000 + seed, width, height)


def cut_out(image: Image.Image) -> Image.Image:
    mask = Image.new("L", image.size, 255)
    mask.paste(0, (0, 0, 80, image.height))
    image.putalpha(mask)
    return image


def test_each_planted_fault_is_named_and_nothing_else(tmp_path: Path) -> None:
    first, second = scene(0), scene(1)
    pictures = {
        "copy.jpg": ("duplicate", first.resize((500, 500))),
        "mirrored.png": ("duplicate", ImageOps.mirror(second)),
        "blurred.png": ("blurred", scene(2).filter(ImageFilter.GaussianBlur(9))),
        "dark.png": ("dark", scene(3).point(lambda value: value // 12)),
        "white.png": ("bright", scene(4).point(lambda value: 235 + value // 14)),
        "wide.png": ("aspect", scene(5, 1500, 500)),
        "small.png": ("small", scene(6, 300, 300)),
        "alpha.png": ("alpha", cut_out(scene(7))),
        "nameless.png": ("no_subject", scene(8)),
        "long.png": ("long_caption", scene(9)),
    }
    first.save(tmp_path / "0.PNG")
    second.save(tmp_path / "1.png")
    for name, (_, picture) in pictures.items():
        picture.save(tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        path.with_suffix(".txt").write_text(f"zkw dog, scene {path.stem}")
    (tmp_path / "nameless.txt").write_text("a dog")
    (tmp_path / "long.txt").write_text("zkw dog, " + "one more word, " * 60)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "copy.jpg").read_bytes()[:5000])
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "scan.tif").write_bytes(b"II*\0")
    (tmp_path / "tiny.png").write_bytes(b"")
    scene(10, 60, 60).save(tmp_path / "stamp.png")
    (tmp_path / "lonely.txt").write_text("zkw dog")
    expected = {(kind, name) for name, (kind, _) in pictures.items()} | {
        ("unreadable", "cut.jpg"),
        ("unreadable", "page.jpg"),
        ("unreadable", "tiny.png"),
        ("not_a_photo", "scan.tif"),
        ("too_small", "stamp.png"),
        ("caption", "lonely.txt"),
    }
    result = run(CheckConfig(photos=tmp_path, subject="zkw dog", resolution=512, buckets=True))
    assert {(problem.kind, problem.photo) for problem in result.problems} == expected
    assert len(result.problems) == len(expected) and not result.blocking
    assert {problem.photo for problem in result.left_out} == {
        "cut.jpg", "page.jpg", "tiny.png", "scan.tif", "stamp.png",
    }  # fmt: skip
    for problem in result.problems:
        assert problem.photo in problem.message and problem.message.endswith(".")
    assert result.images == 12


def test_a_data_set_without_faults_has_no_findings(tmp_path: Path) -> None:
    for number in range(8):
        scene(20 + number).save(tmp_path / f"{number}.jpg", quality=90)
        (tmp_path / f"{number}.txt").write_text(f"zkw dog in place {number}")
    result = run(CheckConfig(photos=tmp_path, subject="zkw dog", resolution=512, buckets=True))
    assert result.problems == []
