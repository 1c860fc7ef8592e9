"""Draws the sheets of docs/controlnet.md on pocket: python -m benchmarks.control_pictures LORA FOLDER

LORA: a LoRA of the demo's robot (`maquette demo` makes one). The case of many a notebook: two ControlNets at once, a
LoRA of offset noise (trained here in a minute, once) and a LoRA of a subject; and a sheet of the settings.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from maquette.config import TrainConfig
from maquette.demo.drawing import Pose, robot
from maquette.report.sheet import sheet
from maquette.sampling.pipeline import Pipeline
from maquette.stages import train

SIZE, SEEDS = 256, (1, 2, 3)
PROMPT = "a photo of zkw robot on a blue background"


def shown(folder: Path) -> tuple[Path, Path]:
    """What the two ControlNets are shown: the outline of a robot on the left; a star at the top right."""
    left, right = folder / "robot.png", folder / "star.png"
    figure = robot(SIZE, Pose(x=0.34, y=0.55, height=0.85))
    figure.getchannel("A").convert("RGB").save(left)
    ground = Image.new("RGB", (SIZE, SIZE), "white")
    star = [
        (192, 20),
        (206, 60),
        (246, 62),
        (214, 86),
        (226, 126),
        (192, 102),
        (158, 126),
        (170, 86),
        (138, 62),
        (178, 60),
    ]
    ImageDraw.Draw(ground).polygon(star, fill=(250, 200, 40), outline="black", width=4)
    ground.save(right)
    return left, right


def offset_noise(folder: Path) -> Path:
    """A small LoRA trained with offset noise on dark pictures, so that pictures can be darker than the base's."""
    found = folder / "offset-noise.safetensors"
    if not found.exists():
        photos = folder / "dark"
        photos.mkdir(exist_ok=True)
        with Pipeline() as pipeline:
            for i, thing in enumerate(("cat", "star", "house", "rose", "car", "balloon")):
                made = pipeline.generate(f"a photo of a {thing} on a black background", seed=i)[0].image
                made.point([v * 2 // 3 for v in range(256)] * 3).save(photos / f"{i}.png")
                (photos / f"{i}.txt").write_text(f"a photo of a {thing}")
        told: dict[str, Any] = {"photos": photos, "out": folder / "run", "steps": 60, "rank": 4, "batch_size": 4}
        told |= {"noise_offset": 0.1, "sample_prompts": [], "learning_rate": 1e-3}
        train.run(TrainConfig.parse(told, "offset noise"))
        shutil.copy(sorted((folder / "run").rglob("*.safetensors"))[-1], found)
    return found


def notebook(pipeline: Pipeline, folder: Path, controls: list[str]) -> Image.Image:
    """Each column adds one thing to the one before it."""
    columns: dict[str, tuple[str, list[str]]] = {
        "the words alone": ("", []),
        "+ LoRA of the robot": ("<lora:zkw-robot:0.9>", []),
        "+ first ControlNet": ("<lora:zkw-robot:0.9>", controls[:1]),
        "+ second ControlNet": ("<lora:zkw-robot:0.9>", controls),
        "+ offset noise": ("<lora:zkw-robot:0.9><lora:offset-noise:1>", controls),
    }
    rows = []
    for seed in SEEDS:
        for tags, used in columns.values():
            rows.append(pipeline.generate(PROMPT + tags, seed=seed, controls=used, lora_dir=folder)[0].image)
    return sheet(rows, len(columns), labels_top=[*columns], zoom=2)


def settings(pipeline: Pipeline, picture: Path) -> Image.Image:
    """Weight, start, end and mode, and what preprocessors make of the picture."""
    unit = f"pocket-canny,image={picture}"
    asked = {
        "canny": "preprocessor=canny", "weight 0.4": "preprocessor=canny,weight=0.4",
        "weight 1.6": "preprocessor=canny,weight=1.6", "end 0.3": "preprocessor=canny,end=0.3",
        "start 0.3": "preprocessor=canny,start=0.3", "mode prompt": "preprocessor=canny,mode=prompt",
        "mode control": "preprocessor=canny,mode=control", "threshold": "preprocessor=threshold",
    }  # fmt: skip
    prompt = "a photo of a house on a red background"
    drawn = [pipeline.generate(prompt, seed=1, controls=[f"{unit},{how}"])[0].image for how in asked.values()]
    return sheet(drawn, len(asked), labels_top=[*asked], zoom=2)


def main(lora: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, Pipeline() as pipeline:
        folder = Path(temporary)
        shutil.copy(lora, folder / "zkw-robot.safetensors")
        shutil.copy(offset_noise(out), folder / "offset-noise.safetensors")
        pictures = shown(folder)
        controls = [f"pocket-canny,image={picture},preprocessor=canny" for picture in pictures]
        controls = [f"{controls[0]},weight=0.8,end=0.6", f"{controls[1]},weight=0.35,end=0.5"]
        notebook(pipeline, folder, controls).save(out / "control_notebook.png")
        settings(pipeline, pictures[1]).save(out / "control_settings.png")
        for picture in pictures:
            shutil.copy(picture, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
