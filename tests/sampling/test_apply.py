from __future__ import annotations

import pytest
import torch

from maquette import families
from maquette.adapters.file import Adapter, AdapterModule
from maquette.errors import MaquetteError
from maquette.families import targets
from maquette.families.base import BaseModel
from maquette.sampling.apply_loras import apply_loras
from tests.sampling.random_loras import random_adapter


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


def weights(base: BaseModel) -> dict[str, torch.Tensor]:
    found = targets(base, text_encoder=True)
    return {name: getattr(parent, attribute).weight.data for name, (parent, attribute) in found.items()}


def test_weights_are_the_sum_within_and_themselves_afterwards(base: BaseModel) -> None:
    first, second = random_adapter(base), random_adapter(base, text_encoder=False, seed=1)
    before = weights(base)
    with apply_loras(base, [(first, 0.5, 2.0), (second, 1.0, -1.0)]) as applied:
        assert [len(a.unmatched) for a in applied] == [0, 0]
        assert all(a.warning is None for a in applied)
        for name, weight in weights(base).items():
            te = name.startswith("text_encoder")
            expected = before[name] + (0.5 if te else 2.0) * first.delta(name).reshape(weight.shape)
            if not te:
                expected = expected - second.delta(name).reshape(weight.shape)
            assert torch.allclose(weight, expected, atol=1e-5), name
    after = weights(base)
    assert all(after[name].data_ptr() == before[name].data_ptr() for name in before)


def test_restored_after_a_fault_and_nothing_done_by_0(base: BaseModel) -> None:
    before = {name: (weight, weight.clone()) for name, weight in weights(base).items()}
    with pytest.raises(KeyError), apply_loras(base, [(random_adapter(base), 1.0, 1.0)]):
        raise KeyError
    with apply_loras(base, [(random_adapter(base), 0.0, 0.0)]):
        for name, weight in weights(base).items():
            assert weight is before[name][0] or weight.data_ptr() == before[name][0].data_ptr()
    for name, weight in weights(base).items():
        assert weight.data_ptr() == before[name][0].data_ptr()
        assert torch.equal(weight, before[name][1])


def test_another_base_and_another_shape(base: BaseModel) -> None:
    stranger = Adapter(
        "sdxl", "lora", {"lora_te2_x": next(iter(random_adapter(base).modules.values()))}, source="x.safetensors"
    )
    with (
        pytest.raises(MaquetteError, match=r"x\.safetensors.*Stable Diffusion XL.*none of its 1 modules.*pocket"),
        apply_loras(base, [(stranger, 1.0, 1.0)]),
    ):
        pass
    before = weights(base)
    wide = random_adapter(base)
    name = next(name for name in reversed(wide.modules) if name.startswith("unet."))
    factors = wide.modules[name].factors
    factors["lora_down.weight"] = torch.ones(
        4, 2 * factors["lora_down.weight"].shape[1], *factors["lora_down.weight"].shape[2:]
    )
    with pytest.raises(MaquetteError, match=name), apply_loras(base, [(wide, 1.0, 1.0)]):
        pass
    assert all(weight.data_ptr() == before[n].data_ptr() for n, weight in weights(base).items())  # also those before it


def test_unmatched_modules_are_named(base: BaseModel) -> None:
    adapter = random_adapter(base)
    some = next(iter(adapter.modules.values()))
    adapter.modules |= {"lora_unet_down_blocks_7_x": some, "lora_te_text_model_encoder_layers_99_mlp_fc1": some}
    with apply_loras(base, [(adapter, 1.0, 1.0)]) as [applied]:
        assert applied.unmatched == ["lora_unet_down_blocks_7_x", "lora_te_text_model_encoder_layers_99_mlp_fc1"]
        assert applied.warning is not None
        assert "2 of its" in applied.warning


def test_changes_of_biases_and_norms(base: BaseModel) -> None:
    conv_in = base.unet.conv_in
    change = torch.full_like(conv_in.weight, 0.25)
    modules = {"unet.conv_in": AdapterModule({"diff": change, "diff_b": torch.ones_like(conv_in.bias)})}
    weight, bias = conv_in.weight.data.clone(), conv_in.bias.data.clone()
    with apply_loras(base, [(Adapter("pocket", "full", modules), 1.0, 2.0)]):
        assert torch.allclose(conv_in.weight, weight + 0.5)
        assert torch.allclose(conv_in.bias, bias + 2)
    assert torch.equal(conv_in.weight, weight)
    assert torch.equal(conv_in.bias, bias)


def test_half_precision_weights_are_rounded_once() -> None:
    half = families.load("pocket", dtype=torch.bfloat16)
    adapter = random_adapter(half)
    before = weights(half)
    with apply_loras(half, [(adapter, 0.7, 0.7)]):
        for name, weight in weights(half).items():
            exact = before[name].float() + 0.7 * adapter.delta(name).reshape(weight.shape)
            assert torch.equal(weight, exact.to(torch.bfloat16))


def test_several_loras_are_rounded_once_in_half_precision() -> None:
    """Eight changes of 1/1024 each are lost one by one beside a weight of 1 in bfloat16, and are not lost together."""
    base = families.load("pocket", torch.bfloat16)
    module = base.unet.conv_in
    with torch.no_grad():
        module.weight.fill_(1.0)
    out, inner = module.weight.shape[:2]
    factors = {
        "lora_down.weight": torch.full((1, inner, 3, 3), 1 / 1024),
        "lora_up.weight": torch.ones(out, 1, 1, 1),
        "alpha": torch.tensor(1.0),
    }
    small = Adapter("pocket", "locon", {"unet.conv_in": AdapterModule(factors)})
    with apply_loras(base, [(small, 1.0, 1.0)] * 8):
        assert module.weight.unique().tolist() == [1.0078125]
    with apply_loras(base, [(small, 1.0, 1.0)]):
        assert module.weight.unique().tolist() == [1.0]
