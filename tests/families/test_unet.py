"""Our UNet and ControlNet are diffusers': names, shapes, outputs and every gradient, in all families."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from benchmarks import theirs
from maquette.errors import MaquetteError
from maquette.families import full_size
from maquette.families.folders import read_json
from maquette.families.pocket.spec import WEIGHTS
from maquette.families.unet import ControlNetModel, KeptText, UNet2DConditionModel
from maquette.families.unet.transformer import BasicTransformerBlock

REFINER = {
    "block_out_channels": (64, 64, 128, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 2,
    "attention_head_dim": [1, 1, 2, 2],
    "projection_class_embeddings_input_dim": 5 * 256 + 128,
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{f"{family} 4": tiny.unet_options(family, 4) for family in ("sd1", "sd2", "sdxl")},
    **{f"sd1 {n}": tiny.unet_options("sd1", n) for n in (8, 9)},
    "sdxl 9": tiny.unet_options("sdxl", 9),
    "refiner": tiny.unet_options("sdxl", 4) | REFINER,
    "pocket": read_json(WEIGHTS / "unet" / "config.json"),
    "SDXL made smaller, a depth for every transformer": tiny.unet_options("sdxl", 4)
    | {
        "transformer_layers_per_block": [1, [1, 2], [2, 1]],
        "reverse_transformer_layers_per_block": [[1, 2, 1], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    "SD1 made smaller, without a middle": tiny.unet_options("sd1", 4)
    | {"mid_block_type": None, "layers_per_block": [1, 2, 1, 1], "act_fn": "swish", "upcast_attention": True},
}  # fmt: skip


def scattered(module: nn.Module, seed: int = 0) -> Any:
    """With random numbers everywhere, so that no two tensors are alike; frozen."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


@cache
def shared(name: str) -> Any:
    """Our UNet of some options, the same for all who ask: not to be changed."""
    return scattered(UNet2DConditionModel(OPTIONS[name]))


@cache
def oracle_of(name: str) -> Any:
    """diffusers' network of the same options and weights: not to be changed."""
    return theirs.unet(shared(name))


def inputs(config: Any, dtype: torch.dtype, size: tuple[int, int] = (8, 8)) -> list[Any]:
    """x, t, context, and of SDXL pooled text and sizes."""
    generator = torch.Generator().manual_seed(3)
    made: list[Any] = [
        torch.randn(2, config.in_channels, *size, generator=generator).to(dtype),
        torch.tensor([3, 700]),
        torch.randn(2, 77, config.cross_attention_dim, generator=generator).to(dtype),
    ]
    if config.addition_embed_type:
        numbers = (config.projection_class_embeddings_input_dim - 128) // config.addition_time_embed_dim
        sizes = torch.tensor([[1024, 768, 0, 32, 1024, 768][:numbers]] * 2)
        made += [torch.randn(2, 128, generator=generator).to(dtype), sizes.to(dtype)]
    return made


def as_diffusers(given: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The same inputs in diffusers' form."""
    added = {"text_embeds": given[3], "time_ids": given[4]} if given[3:] else None
    return given[:3], {"added_cond_kwargs": added, "return_dict": False}


def gradients(network: nn.Module, output: Tensor) -> dict[str, Tensor | None]:
    """Of all parameters, for a sum in which every number of the output has its own weight."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).to(output)
    return dict(zip(names, torch.autograd.grad((output * weights).sum(), parameters, allow_unused=True), strict=True))


def close(ours: Tensor | None, wanted: Tensor | None, dtype: torch.dtype) -> None:
    assert ours is not None and wanted is not None
    assert (ours - wanted).norm() <= {torch.float32: 1e-5, torch.float64: 1e-10}[dtype] * wanted.norm()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float64) for name in OPTIONS),
        *((n, torch.float32) for n in OPTIONS if not n.endswith(("8", "9"))),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_diffusers(name: str, dtype: torch.dtype) -> None:
    ours, oracle = (copy.deepcopy(network).to(dtype) for network in (shared(name), oracle_of(name)))
    ours.requires_grad_(True)
    oracle.requires_grad_(True)
    assert list(ours.state_dict()) == list(oracle.state_dict())
    given = inputs(ours.config, dtype, (8, 8) if dtype == torch.float64 else (10, 6))  # the second is halved unevenly
    plain, named = as_diffusers(given)
    made, wanted = ours(*given), oracle(*plain, **named)[0]
    close(made, wanted, dtype)
    expected = gradients(oracle, wanted)
    found = gradients(ours, made)
    for path, gradient in found.items():
        close(gradient, expected[path], dtype)
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_text_whose_keys_are_kept_gives_the_same_bits(name: str) -> None:
    ours = copy.deepcopy(shared(name))
    given = inputs(ours.config, torch.float32)
    kept, asked = KeptText(given[2]), []
    for module in ours.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2.to_k.register_forward_hook(lambda *_: asked.append(1))
    with torch.no_grad():
        for t in (given[1], given[1] + 9):
            fresh = ours(given[0], t, *given[2:])
            before = len(asked)
            assert torch.equal(ours(given[0], t, kept, *given[3:]), fresh)
        assert len(asked) == before


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_operations_give_the_same_bits(name: str) -> None:
    ours = shared(name)
    given = inputs(ours.config, torch.float32)
    plain, named = as_diffusers(given)
    with torch.no_grad():
        assert torch.equal(ours(*given), oracle_of(name)(*plain, **named)[0])


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_names_and_shapes_at_full_size(family: str) -> None:
    """In diffusers' order, too: numbers drawn for adapters follow it."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as Oracle

    ours: Any = full_size.networks(family)["unet"]
    with torch.device("meta"):
        oracle = Oracle.from_config(dict(ours.config))
    shapes = [(name, tensor.shape) for name, tensor in oracle.state_dict().items()]
    assert [(name, tensor.shape) for name, tensor in ours.state_dict().items()] == shapes
    layers = [name for name, layer in oracle.named_modules() if hasattr(layer, "weight")]
    assert [name for name, layer in ours.named_modules() if hasattr(layer, "weight")] == layers
    assert {key: ours.config[key] for key in ours.config.keys() & oracle.config.keys()} == {
        key: oracle.config[key] for key in ours.config.keys() & oracle.config.keys()
    }


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_names_and_shapes_of_a_controlnet_at_full_size(family: str) -> None:
    from diffusers.models.controlnets.controlnet import ControlNetModel as Oracle

    unet: Any = full_size.networks(family)["unet"]
    with torch.device("meta"):
        oracle = Oracle.from_config(dict(unet.config))
        ours = ControlNetModel(dict(oracle.config))
    shapes = [(name, tensor.shape) for name, tensor in oracle.state_dict().items()]
    assert [(name, tensor.shape) for name, tensor in ours.state_dict().items()] == shapes


def controlnet_options(name: str) -> dict[str, Any]:
    only_unet = ("out_channels", "up_block_types", "sample_size")
    given = {key: value for key, value in OPTIONS[name].items() if key not in only_unet}
    return given | {"conditioning_embedding_out_channels": (4, 8, 12, 16)}


@pytest.mark.parametrize(
    ("name", "dtype", "order"),
    [
        *((name, torch.float32, "rgb") for name in ("sd1 4", "sd2 4", "sdxl 4")),
        ("sd1 4", torch.float64, "rgb"),
        ("sdxl 4", torch.float64, "bgr"),
    ],
    ids=str,
)
def test_a_controlnet_steers_the_unet_as_in_diffusers(name: str, dtype: torch.dtype, order: str) -> None:
    """Outputs of both networks, and the gradients of the ControlNet through the UNet."""
    unet, their_unet = (copy.deepcopy(network).to(dtype) for network in (shared(name), oracle_of(name)))
    options = controlnet_options(name) | {"controlnet_conditioning_channel_order": order}
    ours = scattered(ControlNetModel(options), 1).to(dtype)
    oracle = theirs.controlnet(ours)
    ours.requires_grad_(True)
    oracle.requires_grad_(True)
    given = inputs(unet.config, dtype)
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)).to(dtype)
    control = ours(*given[:3], picture, *given[3:], strength=0.7)
    plain, named = as_diffusers(given)
    down, mid = oracle(*plain, picture, conditioning_scale=0.7, **named)
    for mine, wanted in zip([*control[0], control[1]], [*down, mid], strict=True):
        assert torch.equal(mine, wanted) and mine.abs().max() > 0
    made = unet(*given, control=control)
    steered = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    wanted = their_unet(*plain, **named, **steered)[0]
    close(made, wanted, dtype)
    with torch.no_grad():
        assert (made - unet(*given)).abs().max() > 1e-3
    expected = gradients(oracle, wanted)
    for path, gradient in gradients(ours, made).items():
        close(gradient, expected[path], dtype)


@pytest.mark.parametrize("name", ["sd1 4", "sdxl 4"])
def test_checkpointing_changes_no_bit_and_keeps_less(name: str) -> None:
    ours = copy.deepcopy(shared(name)).requires_grad_(True)
    given = inputs(ours.config, torch.float32)

    def passed() -> tuple[list[Tensor | None], int]:
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = ours(*given)
        return [output, *gradients(ours, output).values()], kept

    plain, whole = passed()
    ours.enable_gradient_checkpointing()
    again, less = passed()
    assert less < whole / 2
    assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_inner_features_are_handed_out() -> None:
    """As forward hooks see them in diffusers' network."""
    ours = shared("sd1 4")
    oracle, seen, features = copy.deepcopy(oracle_of("sd1 4")), {}, {}

    def hook(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: output[0] if isinstance(output, tuple) else output})

    names = [*(f"{way}_blocks.{i}" for way in ("down", "up") for i in range(4)), "mid_block"]
    for name in names:
        oracle.get_submodule(name).register_forward_hook(hook(name))
    given = inputs(ours.config, torch.float32)
    plain, named = as_diffusers(given)
    with torch.no_grad():
        oracle(*plain, **named)
        ours(*given, features=features)
    assert features.keys() == seen.keys() == set(names)
    assert all(torch.equal(features[name], seen[name]) for name in names)


def test_attention_is_a_function_that_can_be_replaced() -> None:
    ours = copy.deepcopy(shared("sd1 4"))
    given, called = inputs(ours.config, torch.float32), []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        called.append((q.shape, k.shape))
        return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v

    with torch.no_grad():
        expected = ours(*given)
        for module in ours.modules():
            if hasattr(module, "attend"):
                module.attend = attend
        torch.testing.assert_close(ours(*given), expected, rtol=1e-4, atol=1e-4)
    assert len(called) == 2 * 16 and called[:2] == [((2, 8, 64, 4), (2, 8, 64, 4)), ((2, 8, 64, 4), (2, 8, 77, 4))]


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        ({"num_class_embeds": 1000}, "num_class_embeds = 1000"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256"),
        ({"encoder_hid_dim": 1280}, "encoder_hid_dim = 1280"),
        ({"dual_cross_attention": True}, "dual_cross_attention = True"),
        ({"only_cross_attention": [True, True, True, False]}, "only_cross_attention = True"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift'"),
        ({"addition_embed_type": "image"}, "addition_embed_type = 'image'"),
        ({"down_block_types": ["KDownBlock2D"] * 4}, "down_block_types = 'KDownBlock2D'"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type = 'UNetMidBlock2DSimpleCrossAttn'"),
        ({"attention_head_dim": [5, 10]}, "4 block_out_channels, but 2 attention_head_dim"),
    ],
)
def test_what_stable_diffusion_never_has_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with torch.device("meta"), pytest.raises(MaquetteError, match=named):
        UNet2DConditionModel(wrong)


def test_sdxl_without_its_pooled_vector_is_refused() -> None:
    ours = UNet2DConditionModel(OPTIONS["sdxl 4"])
    with pytest.raises(ValueError, match="pooled text vector"):
        ours(*inputs(ours.config, torch.float32)[:3])
