"""Training on a 9-channel inpainting base: its extra channels by hand, and a run from photos to a LoRA."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from maquette import families
from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.core.seeds import seeded
from maquette.formats import safetensors
from maquette.stages import train
from maquette.training import inpainting


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow Stable Diffusion 1 inpainting model with random weights, as diffusers writes it."""
    root = tmp_path_factory.mktemp("inpainting")
    return tiny.write_folder(root / "base", "sd1", channels=9)


@pytest.fixture(scope="module")
def base(folder: Path) -> families.BaseModel:
    return families.load(str(folder))


def test_masks_are_whole_rectangles_and_ellipses_and_repeat_with_the_seed() -> None:
    masks = [inpainting.random_mask(32, 48, seeded(0, i)) for i in range(60)]
    again = [inpainting.random_mask(32, 48, seeded(0, i)) for i in range(60)]
    assert all(torch.equal(a, b) for a, b in zip(masks, again, strict=True))
    assert {float(v) for mask in masks for v in mask.unique()} == {0.0, 1.0}
    whole = sum(bool(mask.all()) for mask in masks)
    filled = 0
    for mask in masks:
        rows, columns = torch.nonzero(mask[0].any(1)), torch.nonzero(mask[0].any(0))
        box = (int(rows.max() - rows.min()) + 1) * (int(columns.max() - columns.min()) + 1)
        filled += int(mask.sum()) == box
    assert 6 <= whole <= 25 and whole < filled < 60  # some are whole, more are boxes, the others ellipses


def test_mask_and_masked_picture_by_hand(base: families.BaseModel) -> None:
    """Against the VAE asked directly; the mask's cell is the pixel at its upper left."""
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 64, 64)
    mask[0, 8:40, 16:64] = 1
    made = inpainting.extra_channels(base, picture, mask)
    small = torch.zeros(8, 8)
    small[1:5, 2:8] = 1
    assert torch.equal(made[0], small)
    hidden = picture.clone()
    hidden[:, 8:40, 16:64] = 0
    with torch.no_grad():
        mean = base.vae.encode(hidden[None]).mean[0] * base.vae.config.scaling_factor
    torch.testing.assert_close(made[1:], mean)


def test_without_channels_the_whole_picture_is_repainted(base: families.BaseModel) -> None:
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 900])
    told = base.encode_text(["a cat", "a dog"])
    grey = base.encode_images(torch.zeros(1, 3, 64, 64))[0].expand(2, -1, -1, -1)
    concat = torch.cat([torch.ones(2, 1, 8, 8), grey], dim=1)
    with torch.no_grad():
        alone = base.predict(x, t, told)
        torch.testing.assert_close(alone, base.predict(x, t, Conditioning(told.tokens, concat=concat)))
        other = base.predict(x, t, Conditioning(told.tokens, concat=concat * 0))
    assert (alone - other).abs().max() > 1e-4


def test_a_run_on_an_inpainting_base(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 40 * i + 60, np.uint8)).save(photos / f"{i}.png")
    seen = []
    real = families.sd.model.StableDiffusion.predict

    def spy(self: object, x: torch.Tensor, t: torch.Tensor, told: Conditioning) -> torch.Tensor:
        seen.append(told.concat)
        return real(self, x, t, told)  # type: ignore[arg-type]

    monkeypatch.setattr(families.sd.model.StableDiffusion, "predict", spy)
    values = {"photos": photos, "subject": "zkw disc", "base": str(folder), "steps": 3, "batch_size": 2, "rank": 2}
    more = {"resolution": 64, "sample_prompts": [], "dtype": "fp32", "prior_preservation": True}
    result = train.run(TrainConfig.parse(values | more | {"out": tmp_path / "disc"}))
    assert result.file and all(c is not None and c.shape[1:] == (5, 8, 8) for c in seen)
    assert len({c[0].sum().item() for c in seen}) > 1  # not one mask for all
    state = safetensors.load(Path(result.file))
    assert any(t.abs().max() > 0 for key, t in state.items() if key.endswith("lora_up.weight"))
