"""What blend and extract write opens in diffusers and predicts the same there as here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import maquette
from maquette.families import checkpoint, load, save
from tests.weights.narrow import related


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return related(tmp_path_factory.mktemp("related"), "sd1")


def picture_of(unet: object) -> Tensor:
    """A prediction from one noise, step and text: equal networks draw equal pictures."""
    torch.manual_seed(0)
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 64)
    with torch.no_grad():
        found = unet(x, t, text)  # type: ignore[operator]
    return found if isinstance(found, Tensor) else found.sample


def test_a_blend(files: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    maquette.blend([files["a"], files["b"]], tmp_path / "blended", alpha=0.3)
    theirs = UNet2DConditionModel.from_pretrained(tmp_path / "blended" / "unet", local_files_only=True)
    ours = load(str(tmp_path / "blended"), dtype=torch.float32).unet
    assert torch.allclose(picture_of(theirs), picture_of(ours), atol=1e-4)
    assert not torch.allclose(
        picture_of(theirs), picture_of(load(str(files["a"]), dtype=torch.float32).unet), atol=1e-3
    )


def test_an_extracted_lora(files: dict[str, Path], tmp_path: Path) -> None:
    """As diffusers applies it, and as maquette merges it."""
    from diffusers import StableDiffusionPipeline

    lora = tmp_path / "lora.safetensors"
    maquette.extract(files["b"], files["a"], lora, rank=4, text_encoder=False)
    save.write_folder(checkpoint.read(files["a"]), tmp_path / "base")
    maquette.merge(files["a"], [str(lora)], tmp_path / "merged.safetensors")
    pipe = StableDiffusionPipeline.from_pretrained(
        tmp_path / "base", safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    before = picture_of(pipe.unet)
    pipe.load_lora_weights(str(lora))
    theirs, ours = (
        picture_of(pipe.unet),
        picture_of(load(str(tmp_path / "merged.safetensors"), dtype=torch.float32).unet),
    )
    assert torch.allclose(theirs, ours, atol=1e-4) and not torch.allclose(theirs, before, atol=1e-3)
