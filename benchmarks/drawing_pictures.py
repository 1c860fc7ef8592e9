"""Draws the sheet of docs/drawing.md on pocket: python -m benchmarks.drawing_pictures OUT.png."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from maquette.report.sheet import sheet
from maquette.sampling.pipeline import Pipeline

CAT = "a photo of a cat on a red background"
BLUE = "a photo of a cat on a blue background"


def main(out: Path) -> None:
    """Six drawings, each from the first."""
    with tempfile.TemporaryDirectory() as folder, Pipeline() as pipeline:
        cat, mask = Path(folder) / "cat.png", Path(folder) / "mask.png"
        first = pipeline.generate(CAT, seed=3)[0].image
        first.save(cat)
        upper = Image.new("L", first.size)
        upper.paste(255, (0, 0, first.width, 30))
        upper.save(mask)
        soft: dict[str, Any] = {"init_image": cat, "seed": 1, "mask_blur": 2}
        masked = {**soft, "mask": str(mask), "denoising_strength": 0.9}
        wide = {**soft, "extend": ["left=32"], "masked_content": "fill", "denoising_strength": 0.9}
        drawn = {
            "text to image": first,
            "--init-image": pipeline.generate(CAT.replace("cat", "dog"), **soft, denoising_strength=0.6)[0].image,
            "--mask": pipeline.generate(BLUE, **masked)[0].image,
            "--only-masked": pipeline.generate(BLUE.replace("cat", "star"), **masked, only_masked=True, mask_padding=4)[
                0
            ].image,
            "--extend left=32": pipeline.generate(CAT, **wide)[0].image,
            "--variation-strength 0.3": pipeline.generate(CAT, seed=3, variation_seed=5, variation_strength=0.3)[
                0
            ].image,
        }
    sheet([*drawn.values()], len(drawn), labels_top=[*drawn], zoom=2).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
