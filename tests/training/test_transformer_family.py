"""A second architecture through the same doors: a flow transformer is trained, resumed, saved and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import maquette
from maquette import adapters, families
from maquette.core.denoiser import Conditioning
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.prompts.encode import encode
from maquette.sampling.apply_loras import apply_loras
from maquette.sampling.loop import check_size
from tests.families import tiny_transformer as tiny
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 2, "rank": 2, "dtype": "fp32", "learning_rate": 1e-3, "sample_steps": 2,
    "buckets": False, "choose": False, "probe_prediction": False, "lr_scheduler": "constant",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("dit") / "base")


def test_it_has_about_a_million_parameters_and_its_own_shapes(base: Path) -> None:
    model = families.load(base)
    assert 0.9e6 < sum(p.numel() for p in model.network.parameters()) < 1.4e6
    assert model.spec.latent_channels == 16 and model.spec.size_multiple == 8 and model.input_channels == 16
    picture = torch.rand(1, 3, 1, 1).expand(1, 3, 32, 32) * 2 - 1
    mean, _ = model.encode_images(picture)
    assert mean.shape == (1, 16, 8, 8)
    torch.testing.assert_close(model.decode(mean), picture / 2 + 0.5, atol=1e-5, rtol=0)


def test_texts_are_joined_by_the_familys_own_rule(base: Path) -> None:
    model = families.load(base)
    long, short = encode(model, "a cat BREAK a dog"), encode(model, "a cat")
    assert long.tokens.shape[1] == 154 and long.others["mask"].shape == (1, 154)
    both = Conditioning.cat([short, long])
    assert both.tokens.shape[:2] == (2, 154) and float(both.others["mask"][0, 77:].sum()) == 0
    assert float(both.tokens[0, 77:].abs().sum()) == 0  # Stable Diffusion would repeat the last vector
    x, t = torch.randn(1, 16, 8, 8), torch.tensor([500.0])
    torch.testing.assert_close(model.predict(x, t, both[:1]), model.predict(x, t, short))


def test_it_is_trained_resumed_saved_and_drawn(base: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    values = VALUES | {"base": str(base), "sample_prompts": ["a photo of zkw disc"]}
    whole = maquette.train(photos, out=tmp_path / "whole/disc", steps=4, **values)
    half = maquette.train(photos, out=tmp_path / "half/disc", steps=2, keep_state=True, **values)
    again = maquette.resume(half.run, steps=4)
    assert whole.file and again.file
    assert list((tmp_path / "whole/disc/samples").rglob("0.png"))
    first, second = safetensors.load(whole.file), safetensors.load(again.file)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert "lora_unet_blocks_3_text_attn_to_k.lora_up.weight" in first
    metadata = safetensors.read_metadata(whole.file)
    assert metadata["ss_base_model_version"] == "tiny_dit_v1" and metadata["modelspec.architecture"] == "tiny-dit/lora"
    model, adapter = families.load(base), adapters.load(whole.file)
    x, t, cond = torch.randn(1, 16, 16, 16), torch.tensor([500.0]), encode(model, "a photo of zkw disc")
    before = model.predict(x, t, cond)
    with apply_loras(model, [(adapter, 1.0, 1.0)]) as applied:
        assert applied[0].unmatched == [] and applied[0].matched == len(adapter.modules) == 4 * 10
        assert not torch.equal(model.predict(x, t, cond), before)
    assert torch.equal(model.predict(x, t, cond), before)


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun"])
def test_it_draws_with_guidance_and_a_lora_in_the_prompt(sampler: str, base: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "base": str(base), "steps": 3, "seed": 1, "width": 40, "height": 64, "cfg_scale": 3.0, "sampler": sampler,
        "negative_prompt": "a dog BREAK a cat", "out": tmp_path,
    }  # fmt: skip
    [picture] = maquette.generate("a (red:1.2) disc", **how)
    assert picture.size == (40, 64) and len(picture.getcolors(4096) or []) > 10
    with pytest.raises(MaquetteError, match="both sides are multiples of 8"):
        check_size(families.load(base), 44, 64)  # 11 cells make no whole patches


def test_it_learns(base: Path, tmp_path: Path) -> None:
    """The whole network on one kind of picture: the loss falls."""
    photos = make_photos(tmp_path / "photos")
    values = VALUES | {"base": str(base), "sample_prompts": [], "rank": 16, "layers": ["attention", "feed_forward"]}
    losses: list[float] = []
    maquette.train(
        photos,
        lambda event: losses.append(event.data["loss"]) if event.kind == "metric" else None,
        out=tmp_path / "disc", steps=60, **values | {"learning_rate": 1e-2},
    )  # fmt: skip
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])
