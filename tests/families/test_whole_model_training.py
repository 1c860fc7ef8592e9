"""DreamBooth on narrow bases with a text encoder that learns, another VAE, and a schedule that ends in pure noise: what
stands in the written model.
"""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from maquette import families
from maquette.config import TrainConfig
from maquette.families import checkpoint, save
from maquette.formats import safetensors
from maquette.stages import train


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        Image.fromarray(np.full((64, 64, 3), 40 * i + 60, np.uint8)).save(folder / f"{i}.png")
    return folder


def trained(photos: Path, base: Path, out: Path, **more: object) -> Path:
    values = {"photos": photos, "subject": "zkw disc", "base": str(base), "out": out, "steps": 2, "batch_size": 2}
    fixed = {"method": "dreambooth", "resolution": 64, "sample_prompts": [], "dtype": "fp32", "save_dtype": "fp32"}
    result = train.run(TrainConfig.parse(values | fixed | {"learning_rate": 1e-4} | more))
    assert result.file
    return Path(result.file)


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    pairs = {name: (tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items()}
    return {name for name, (a, b) in pairs.items() if not torch.equal(a, b)}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_text_encoders_learn_and_are_written(photos: Path, tmp_path: Path, family: str) -> None:
    base = tiny.write_folder(tmp_path / "base", family)
    file = trained(photos, base, tmp_path / "disc", text_encoder=True)
    before, after = families.load(base), families.load(file)
    assert changed(before.unet, after.unet) and not changed(before.vae, after.vae)
    for mine, learned in zip(before.text_encoders, after.text_encoders, strict=True):
        assert any(".self_attn.q_proj.weight" in name for name in changed(mine, learned))


def test_the_model_has_the_vae_of_the_run(photos: Path, tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "base", "sd1")
    other = tiny.write_folder(tmp_path / "other", "sd1", seed=5)
    without = tmp_path / "without.safetensors"
    read = checkpoint.read(base)
    del read.parts["vae"]
    save.write_single_file(read, without)
    file = trained(photos, without, tmp_path / "disc", vae=other / "vae")
    assert not changed(families.load(other).vae, families.load(file).vae)


@pytest.mark.parametrize(("prediction", "marks"), [("v_prediction", {"v_pred", "ztsnr"}), ("epsilon", set())])
def test_a_schedule_that_ends_in_pure_noise_is_written(
    photos: Path, tmp_path: Path, prediction: str, marks: set[str]
) -> None:
    """Where the base predicts v; one that predicts noise can begin no drawing at pure noise."""
    base = tiny.write_folder(tmp_path / "base", "sdxl", prediction=prediction)
    file = trained(photos, base, tmp_path / "disc", zero_terminal_snr=True)
    assert {name for name in safetensors.load(file) if "." not in name} == marks
    assert families.load(file).scheduler_config["rescale_betas_zero_snr"] is bool(marks)
