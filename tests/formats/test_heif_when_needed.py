"""The library of phone photos is imported for phone photos only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAM = """
import sys
from maquette.formats.pictures import open_picture
with open(sys.argv[1], "rb") as file:
    picture = open_picture(file)
    print(picture.format, "pillow_heif" in sys.modules)
"""


@pytest.mark.parametrize(("kind", "imported"), [("png", "PNG False"), ("jpg", "JPEG False"), ("heic", "HEIF True")])
def test_heif_when_needed(kind: str, imported: str, tmp_path: Path) -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    path = tmp_path / f"photo.{kind}"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == imported
