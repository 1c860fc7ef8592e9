"""Our autoencoder against diffusers': moments, pictures, gradients, names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.errors import MaquetteError
from maquette.families import full_size, modules
from maquette.families.sd.model import StableDiffusion

BLOCKS = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
NARROW: dict[str, dict[str, Any]] = {
    "sd": {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 2},
    "pocket": {"block_out_channels": [16, 32, 48], "norm_num_groups": 16, "mid_block_add_attention": False},
    "16 channels": {"block_out_channels": [32, 64], "latent_channels": 16, "use_quant_conv": False,
                    "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    "one level": {"block_out_channels": [32], "in_channels": 4, "out_channels": 1},
}  # fmt: skip


def complete(name: str) -> dict[str, Any]:
    levels = len(NARROW[name]["block_out_channels"])
    return {key: kinds * levels for key, kinds in BLOCKS.items()} | NARROW[name]


def pair(name: str, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Ours and diffusers' with the same random weights, biases and norms too."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    theirs = AutoencoderKL(**complete(name))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    theirs.to(dtype).eval()
    ours = modules.build_vae(complete(name))
    modules.fill(ours, {key: tensor.clone() for key, tensor in theirs.state_dict().items()}, "random", dtype, "cpu")
    return ours.requires_grad_(True), theirs


def pixels(ours: Any, dtype: torch.dtype) -> Tensor:
    """(2, 3, 32, 48)."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, ours.config.in_channels, 32, 48, generator=generator).to(dtype) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_moments_and_pictures_equal_diffusers_to_the_bit(name: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(name, dtype)
    with torch.no_grad():
        found, expected = ours.encode(pixels(ours, dtype)), theirs.encode(pixels(ours, dtype)).latent_dist
        factor = 2 ** (len(ours.config.block_out_channels) - 1)
        assert found.mean.shape == (2, ours.config.latent_channels, 32 // factor, 48 // factor)
        assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
        assert torch.equal(ours.decode(found.mean), theirs.decode(found.mean).sample)


@pytest.mark.parametrize("dtype, least", [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NARROW)
def test_all_gradients_equal_diffusers(name: str, dtype: torch.dtype, least: float) -> None:
    ours, theirs = pair(name, dtype)
    a, b = pixels(ours, dtype).requires_grad_(), pixels(ours, dtype).requires_grad_()
    found, expected = ours.encode(a), theirs.encode(b).latent_dist
    (ours.decode(found.mean + found.std).sin().sum() + found.std.sum()).backward()
    (theirs.decode(expected.mean + expected.std).sample.sin().sum() + expected.std.sum()).backward()
    wanted = dict(theirs.named_parameters())
    assert (a.grad - b.grad).abs().max() <= least * b.grad.abs().max() > 0
    for key, parameter in ours.named_parameters():
        if key.endswith("to_k.bias"):  # shifts all scores of a row alike: its gradient is rounding alone
            assert parameter.grad.abs().max() <= least * wanted[key.replace("bias", "weight")].grad.abs().max()
            continue
        assert parameter.grad is not None and wanted[key].grad.abs().max() > 0, key
        assert (parameter.grad - wanted[key].grad).abs().max() <= least * wanted[key].grad.abs().max(), key


def test_the_deviation_is_bounded() -> None:
    ours, theirs = pair("16 channels", torch.float32)
    with torch.no_grad():
        for module in (ours, theirs):
            module.encoder.conv_out.bias[16:24] = 100.0
            module.encoder.conv_out.bias[24:] = -100.0
        std, expected = ours.encode(pixels(ours, torch.float32)).std, theirs.encode(pixels(ours, torch.float32))
    assert torch.equal(std, expected.latent_dist.std)
    assert torch.allclose(std[:, :8].log(), torch.tensor(10.0)) and torch.allclose(
        std[:, 8:].log(), -torch.tensor(15.0)
    )


def test_scale_and_shift_there_and_back() -> None:
    ours, theirs = pair("16 channels", torch.float32)
    x = pixels(ours, torch.float32)
    base: Any = SimpleNamespace(vae=ours, spec=SimpleNamespace(latent_factor=2))
    with torch.no_grad():
        mean, std = StableDiffusion.encode_images(base, x)
        expected = theirs.encode(x).latent_dist
        assert torch.equal(mean, (expected.mean - 0.1159) * 0.3611) and torch.equal(std, expected.std * 0.3611)
        picture = theirs.decode(mean / 0.3611 + 0.1159).sample / 2 + 0.5
        assert torch.equal(StableDiffusion.decode(base, mean), picture.clamp(0, 1))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_names_and_shapes_at_full_size_are_those_of_diffusers(family: str) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    network = full_size.networks(family)["vae"]
    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(network.config)
    expected = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in network.state_dict().items()} == expected
    assert len(expected) == (136 if family == "pocket" else 248)


def test_missing_keys_of_a_configuration_have_diffusers_values() -> None:
    import inspect

    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    known = inspect.signature(AutoencoderKL.__init__).parameters
    config = modules.build_vae({"_class_name": "AutoencoderKL"}).config
    assert all(known[key].default == value for key, value in config.items()) and config.latent_channels == 4
    assert "_class_name" not in config


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"act_fn": "gelu"}, "the VAE says act_fn = 'gelu'; maquette knows 'silu' and 'swish'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "VAE says down_block_types = 'AttnDownEncoderBlock2D'"),
        ({"block_out_channels": [32, 64]}, "VAE's configuration has 2 widths, but 1 down_block_types"),
    ],
)
def test_configurations_that_no_stable_diffusion_has_are_named(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MaquetteError, match=sentence):
        modules.build_vae(wrong)
