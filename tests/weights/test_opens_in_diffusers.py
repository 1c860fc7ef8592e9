"""What blend, merge, extract and make-inpainting write opens in diffusers and draws the same picture there as here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import maquette
from maquette.families import checkpoint, save
from maquette.sampling.pipeline import Pipeline
from tests.drawn_by_diffusers import PROMPT, agree, asked, ours, theirs
from tests.families import tiny
from tests.weights.narrow import related


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return related(tmp_path_factory.mktemp("related"), "sd1", all_words=True)


def folder_of(file: Path) -> Path:
    """The model as a folder, which diffusers reads without asking the net for configurations."""
    folder = file.with_suffix("")
    save.write_folder(checkpoint.read(file), folder)
    return folder


def drawn_there(folder: Path, lora: Path | None = None) -> np.ndarray:
    pipeline = theirs("StableDiffusionPipeline", folder, local_files_only=True)
    if lora is not None:
        pipeline.load_lora_weights(str(lora))
    return np.asarray(pipeline(**asked(), height=64, width=64).images[0])


def unlike(a: np.ndarray, b: np.ndarray) -> None:
    assert np.abs(a - b).mean() > 2 / 255


def test_a_blend(files: dict[str, Path], tmp_path: Path) -> None:
    maquette.blend([files["a"], files["b"]], tmp_path / "blended", alpha=0.3)
    here = ours(Pipeline(tmp_path / "blended"))
    agree(here, drawn_there(tmp_path / "blended"))
    unlike(here, ours(Pipeline(files["a"])))


def test_an_extracted_lora_in_the_prompt_and_merged(files: dict[str, Path], tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    maquette.extract(files["b"], files["a"], lora, rank=32)
    maquette.merge(files["a"], [str(lora)], tmp_path / "merged.safetensors")
    there = drawn_there(folder_of(files["a"]), lora)
    pipeline = Pipeline(files["a"])
    agree(ours(pipeline, f"{PROMPT}<lora:lora:1>", lora_dir=tmp_path), there)
    agree(ours(Pipeline(tmp_path / "merged.safetensors")), there)
    agree(drawn_there(folder_of(tmp_path / "merged.safetensors")), there)
    unlike(ours(pipeline), there)


def test_an_ordinary_model_made_to_inpaint(files: dict[str, Path], tmp_path: Path) -> None:
    """Its folder has nine channels, and diffusers takes it for an inpainting model."""
    tiny.write_folder(tmp_path / "inpainting", "sd1", channels=9)
    made = tmp_path / "made.safetensors"
    maquette.blend([tmp_path / "inpainting", files["a"]], made, make_inpainting=files["b"])
    pipeline = theirs("StableDiffusionInpaintPipeline", folder_of(made))
    assert pipeline.unet.config.in_channels == 9
