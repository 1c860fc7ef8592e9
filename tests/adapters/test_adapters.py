"""Adapters: the weight change each kind stands for, against LyCORIS and peft; reading and writing; refusals."""

from pathlib import Path

import pytest
import torch

from maquette import adapters
from maquette.errors import MaquetteError
from maquette.formats import safetensors

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lora(out: int = 12, inner: int = 8, rank: int = 4, alpha: float | None = 2.0) -> dict[str, torch.Tensor]:
    factors = {"lora_down.weight": random(rank, inner, seed=1), "lora_up.weight": random(out, rank, seed=2)}
    return factors if alpha is None else factors | {"alpha": torch.tensor(alpha)}


def adapter(**modules: dict[str, torch.Tensor]) -> adapters.Adapter:
    tensors = {f"{name}.{part}": tensor for name, factors in modules.items() for part, tensor in factors.items()}
    return adapters.from_state_dict(tensors, {}, "test")


def test_delta_is_up_times_down_times_alpha_over_rank() -> None:
    f = lora()
    change = adapter(**{LINEAR: f}).delta(LINEAR)
    assert torch.allclose(change, 0.5 * f["lora_up.weight"] @ f["lora_down.weight"], atol=1e-6)


def test_missing_alpha_means_scale_one() -> None:
    f = lora(alpha=None)
    assert torch.allclose(adapter(**{LINEAR: f}).delta(LINEAR), f["lora_up.weight"] @ f["lora_down.weight"], atol=1e-6)


def test_half_precision_factors_are_multiplied_in_float32() -> None:
    f = {part: tensor.half() for part, tensor in lora().items()}
    change = adapter(**{LINEAR: f}).delta(LINEAR)
    assert change.dtype == torch.float32
    assert torch.equal(change, 0.5 * (f["lora_up.weight"].float() @ f["lora_down.weight"].float()))


def test_convolution_delta_equals_running_both_convolutions() -> None:
    f = {"lora_down.weight": random(4, 6, 3, 3), "lora_up.weight": random(10, 4, 1, 1), "alpha": torch.tensor(4.0)}
    change = adapter(**{CONV: f}).delta(CONV)
    x = random(2, 6, 9, 9, seed=5)
    conv = torch.nn.functional.conv2d
    expected = conv(conv(x, f["lora_down.weight"], padding=1), f["lora_up.weight"])
    assert change.shape == (10, 6, 3, 3)
    assert torch.allclose(conv(x, change, padding=1), expected, atol=1e-4)


def test_tucker_delta_equals_running_three_convolutions() -> None:
    f = {"lora_down.weight": random(4, 6, 1, 1), "lora_mid.weight": random(4, 4, 3, 3, seed=3)}
    f["lora_up.weight"] = random(10, 4, 1, 1, seed=4)
    x = random(2, 6, 9, 9, seed=5)
    conv = torch.nn.functional.conv2d
    inner = conv(conv(x, f["lora_down.weight"]), f["lora_mid.weight"], padding=1)
    change = adapter(**{CONV: f}).delta(CONV)
    assert torch.allclose(conv(x, change, padding=1), conv(inner, f["lora_up.weight"]), atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"algo": "lora"},
        {"algo": "lora", "use_tucker": True},
        {"algo": "lora", "dora_wd": True},
        {"algo": "lora", "dora_wd": True, "wd_on_output": False},
        {"algo": "loha"},
        {"algo": "loha", "use_tucker": True},
        {"algo": "loha", "dora_wd": True},
        {"algo": "lokr", "factor": 2},
        {"algo": "lokr", "factor": 2, "decompose_both": True},
        {"algo": "lokr", "factor": 2, "full_matrix": True},
        {"algo": "lokr", "factor": 2, "use_tucker": True},
        {"algo": "lokr", "factor": 2, "dora_wd": True, "wd_on_output": False},
        {"algo": "full"},
    ],
    ids=lambda options: "-".join(str(v) if not isinstance(v, bool) else k for k, v in options.items()),
)
def test_delta_equals_lycoris(options: dict) -> None:
    """Running LyCORIS's layers equals running the plain layers with our delta added to their weight.

    (Its merge_to is no oracle: for LoHa and LoKr, 4.1.3 multiplies by alpha / rank twice there.)
    """
    lycoris = pytest.importorskip("lycoris")
    torch.manual_seed(0)
    layers = {"lin": torch.nn.Linear(32, 48), "point": torch.nn.Conv2d(32, 48, 1), "conv": torch.nn.Conv2d(32, 48, 3)}
    inputs = {"lin": random(5, 32), "point": random(2, 32, 4, 4), "conv": random(2, 32, 4, 4)}
    model = torch.nn.ModuleDict(layers).requires_grad_(False)
    network = lycoris.create_lycoris(
        model, 1.0, linear_dim=4, linear_alpha=2, conv_dim=4, conv_alpha=2, preset="full", **options
    )
    network.apply_to()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = {k.replace("lycoris_", "lora_unet_"): v.clone() for k, v in network.state_dict().items()}
    expected = {name: layer(inputs[name]) for name, layer in layers.items()}
    network.restore()
    ours = adapters.from_state_dict(state, {}, "lycoris")
    assert len(ours.modules) == 3
    for name, layer in layers.items():
        change, bias = ours.delta(f"lora_unet_{name}", layer.weight), ours.bias_delta(f"lora_unet_{name}")
        plain = layer(inputs[name])
        layer.weight.data += change.detach()
        if bias is not None:
            layer.bias.data += bias.detach()
        assert (expected[name] - plain).abs().max() > 0.1
        assert torch.allclose(layer(inputs[name]), expected[name], atol=2e-4), name  # float32 sums in another order


def test_dora_without_the_base_weight_is_refused() -> None:
    with pytest.raises(MaquetteError, match="needs the base model's weight"):
        adapter(**{LINEAR: lora() | {"dora_scale": torch.ones(12, 1)}}).delta(LINEAR)


def test_factors_that_do_not_fit_are_named() -> None:
    broken = lora() | {"lora_up.weight": random(12, 5)}
    with pytest.raises(MaquetteError, match=rf"{LINEAR} cannot be applied: its factors do not fit"):
        adapter(**{LINEAR: broken}).delta(LINEAR)


@pytest.mark.parametrize(
    "modules, method",
    [
        ({LINEAR: lora()}, "lora"),
        (
            {LINEAR: lora(), CONV: {"lora_down.weight": random(2, 4, 3, 3), "lora_up.weight": random(4, 2, 1, 1)}},
            "locon",
        ),
        ({LINEAR: lora() | {"dora_scale": torch.ones(12, 1)}}, "dora"),
        ({LINEAR: {f"hada_w{i}_{s}": random(4, 4) for i in (1, 2) for s in "ab"}}, "loha"),
        ({LINEAR: {"lokr_w1": random(2, 2), "lokr_w2": random(2, 2)}}, "lokr"),
        ({LINEAR: {"diff": random(4, 4)}, "lora_unet_x_norm": {"w_norm": random(4), "b_norm": random(4)}}, "full"),
        ({LINEAR: lora(), CONV: {"lokr_w1": random(2, 2), "lokr_w2": random(2, 2)}}, "mixed"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_method_is_named(modules: dict, method: str) -> None:
    assert adapter(**modules).method == method


@pytest.mark.parametrize(
    "width, name, metadata, family",
    [
        (768, LINEAR, {}, "sd1"),
        (1024, LINEAR, {}, "sd2"),
        (2048, LINEAR, {}, "sdxl"),
        (768, LINEAR, {"ss_base_model_version": "sdxl_base_v1-0"}, "sd1"),  # the shape cannot lie
        (128, LINEAR, {"ss_base_model_version": "maquette_pocket"}, "pocket"),
        (64, "lora_te1_text_model_encoder_layers_0_mlp_fc1", {}, "sdxl"),
        (64, CONV, {"ss_base_model_version": "sd_v1"}, "sd1"),
        (64, CONV, {}, "unknown"),
    ],
)
def test_family_is_found(width: int, name: str, metadata: dict, family: str) -> None:
    tensors = {f"{name}.{part}": tensor for part, tensor in lora(inner=width).items()}
    assert adapters.from_state_dict(tensors, metadata, "test").family == family


def test_save_and_load_keep_everything_and_the_hash_is_true(tmp_path: Path) -> None:
    first = adapter(**{LINEAR: lora()})
    first.metadata = {"ss_output_name": "x", "sshs_model_hash": "stale", "sshs_legacy_hash": "stale"}
    path = tmp_path / "x.safetensors"
    first.save(path, metadata={"modelspec.title": "t"})
    again = adapters.load(path)
    assert again.modules.keys() == first.modules.keys()
    for part, tensor in again.modules[LINEAR].factors.items():
        assert torch.equal(tensor, first.modules[LINEAR].factors[part]), part
    assert again.metadata["ss_output_name"] == "x" and again.metadata["modelspec.title"] == "t"
    assert again.metadata["sshs_model_hash"] == safetensors.body_sha256(path)
    assert "sshs_legacy_hash" not in again.metadata
    first.save(tmp_path / "y.safetensors", metadata={"modelspec.title": "t"})
    assert (tmp_path / "y.safetensors").read_bytes() == path.read_bytes()


def test_save_in_half_precision_casts_alpha_too(tmp_path: Path) -> None:
    adapter(**{LINEAR: lora()}).save(tmp_path / "x.safetensors", dtype=torch.float16)
    assert {t.dtype for t in safetensors.load(tmp_path / "x.safetensors").values()} == {torch.float16}


def test_what_half_precision_would_make_infinite_is_refused(tmp_path: Path) -> None:
    large = adapter(**{LINEAR: lora(alpha=1e6)})
    with pytest.raises(MaquetteError, match=rf"{LINEAR}\.alpha holds numbers beyond 65504, the most in fp16"):
        large.save(tmp_path / "x.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    large.save(tmp_path / "x.safetensors", dtype=torch.bfloat16)
    assert adapters.load(tmp_path / "x.safetensors").modules[LINEAR].alpha == pytest.approx(1e6, rel=0.01)


def test_a_file_without_adapter_is_refused(tmp_path: Path) -> None:
    safetensors.save({"some.weight": random(3, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(MaquetteError, match=r"x.safetensors holds no LoRA"):
        adapters.load(tmp_path / "x.safetensors")


def test_a_key_that_is_not_understood_refuses_the_whole_file() -> None:
    tensors = {f"{LINEAR}.{part}": tensor for part, tensor in lora().items()} | {"spam.weight": random(2, 2)}
    with pytest.raises(MaquetteError, match=r"1 adapter modules with 1 entries .* 'spam.weight'; nothing was loaded"):
        adapters.from_state_dict(tensors, {}, "f.safetensors")
