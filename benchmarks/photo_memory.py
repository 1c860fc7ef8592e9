"""Bytes of memory for each pixel that decoding a photo of each format takes: the figures in formats/pictures.py.

python -m benchmarks.photo_memory
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = (8000, 6250)
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "JPEG": ("jpg", "RGB", {}),
    "JPEG, progressive": ("jpg", "RGB", {"progressive": True, "subsampling": 0}),
    "JPEG, progressive CMYK": ("jpg", "CMYK", {"progressive": True}),
    "PNG": ("png", "RGB", {"compress_level": 1}),
    "PNG, grey": ("png", "L", {"compress_level": 1}),
    "PNG, transparent": ("png", "RGBA", {"compress_level": 1}),
    "BMP": ("bmp", "RGB", {}),
    "WEBP": ("webp", "RGB", {"method": 0}),
    "WEBP, transparent": ("webp", "RGBA", {"method": 0}),
    "AVIF": ("avif", "RGB", {"speed": 10}),
    "AVIF, transparent": ("avif", "RGBA", {"speed": 10}),
    "HEIF": ("heic", "RGB", {"quality": 50}),
}


def measure(path: str) -> None:
    """Print the growth of this process while a photo is decoded."""
    from maquette.formats import pictures

    pictures.pillow()
    before = peak()
    with open(path, "rb") as file:
        pictures.open_picture(file).load()
    print((peak() - before) / (SIZE[0] * SIZE[1]))


def peak() -> int:
    """Most bytes of memory that this process had, not counting what it was before its program began (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    from maquette.formats import pictures

    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, mode, options) in KINDS.items():
            path = Path(folder, f"a.{suffix}")
            pictures.pillow().new("RGBA", SIZE, (200, 100, 50, 100)).convert(mode).save(path, **options)
            command = [sys.executable, "-m", "benchmarks.photo_memory", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{name:24} {float(done.stdout):5.1f} bytes a pixel")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
