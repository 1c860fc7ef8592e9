"""Relatives of LoRA: each changes the weight as its makers do, and every part of a file counts or refuses it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maquette import adapters
from maquette.adapters.file import Adapter
from maquette.errors import MaquetteError

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
Factors = dict[str, torch.Tensor]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapter(factors: Factors, name: str = LAYER, **metadata: str) -> Adapter:
    return adapters.from_state_dict({f"{name}.{part}": tensor for part, tensor in factors.items()}, metadata, "x")


def lora(**more: torch.Tensor) -> Factors:
    plain = {"lora_down.weight": random(4, 12, seed=1), "lora_up.weight": random(8, 4, seed=2)}
    return plain | {"alpha": torch.tensor(2.0)} | {name.replace("__", "."): tensor for name, tensor in more.items()}


def product(factors: Factors) -> torch.Tensor:
    return factors["lora_up.weight"] @ factors["lora_down.weight"]


ALGORITHMS: list[dict[str, Any]] = [
    {"algo": "ia3"},
    {"algo": "ia3", "train_on_input": True},
    {"algo": "glora"},
    {"algo": "diag-oft"},
    {"algo": "diag-oft", "constraint": 0.001},
    {"algo": "diag-oft", "rescaled": True},
    {"algo": "boft"},
    {"algo": "boft", "constraint": 0.001, "rescaled": True},
    {"algo": "full"},
]


@pytest.mark.parametrize("options", ALGORITHMS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_change_is_the_one_of_lycoris(options: dict[str, Any]) -> None:
    """Running LyCORIS' layers is running the plain ones with our change added to their weight."""
    lycoris = pytest.importorskip("lycoris")
    torch.manual_seed(0)
    layers = {"lin": torch.nn.Linear(32, 48), "point": torch.nn.Conv2d(32, 48, 1), "conv": torch.nn.Conv2d(32, 48, 3)}
    inputs = {"lin": random(5, 32), "point": random(2, 32, 4, 4), "conv": random(2, 32, 4, 4)}
    size = 6 if options["algo"] == "boft" else 4  # 48 is 6 times a power of 2
    network = lycoris.create_lycoris(
        torch.nn.ModuleDict(layers).requires_grad_(False), 1.0, linear_dim=size, linear_alpha=2, conv_dim=size,
        conv_alpha=2, preset="full", **options,
    )  # fmt: skip
    network.apply_to()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = {k.replace("lycoris_", "lora_unet_"): v.clone() for k, v in network.state_dict().items()}
    expected = {name: layer(inputs[name]) for name, layer in layers.items()}
    network.restore()
    ours = adapters.from_state_dict(state, {}, "lycoris")
    assert ours.method == {"diag-oft": "oft"}.get(options["algo"], options["algo"]) and len(ours.modules) == 3
    for name, layer in layers.items():
        change, bias = ours.delta(f"lora_unet_{name}", layer.weight), ours.bias_delta(f"lora_unet_{name}")
        plain = layer(inputs[name])
        layer.weight.data += change.detach()
        layer.bias.data += 0 if bias is None else bias.detach()
        assert change.shape == layer.weight.shape and (expected[name] - plain).abs().max() > 1e-3
        assert torch.allclose(layer(inputs[name]), expected[name], atol=2e-4), name


def test_glora_of_older_files_has_its_factors_exchanged() -> None:
    """A1111: b2 b1 + W a2 a1, which is how LyCORIS wrote them before version 2."""
    weight = random(8, 12, seed=9)
    old = {"a1.weight": random(4, 12), "a2.weight": random(12, 4, seed=1), "alpha": torch.tensor(2.0)}
    old |= {"b1.weight": random(4, 12, seed=2), "b2.weight": random(8, 4, seed=3)}
    change = adapter(old).delta(LAYER, weight)
    expected = old["b2.weight"] @ old["b1.weight"] + weight @ old["a2.weight"] @ old["a1.weight"]
    assert torch.allclose(change, 0.5 * expected, atol=1e-5)


def test_oft_diag_holds_the_rotations_themselves() -> None:
    blocks, weight = random(2, 4, 4), random(8, 12, seed=1)
    turned = torch.cat([blocks[i].T @ weight[4 * i : 4 * i + 4] for i in range(2)])
    assert torch.allclose(adapter({"oft_diag": blocks}).delta(LAYER, weight), turned - weight, atol=1e-6)


def test_oft_of_sd_scripts_is_read_under_its_own_prefix_and_written_back_so() -> None:
    """networks/oft.py: R = (I + Q)(I - Q)^-1, the norm of all Q at most alpha times the outputs, W' = R^T W."""
    name, blocks, weight = "oft_" + LAYER.replace(".", "_"), random(2, 4, 4), random(8, 12, seed=1)
    found = adapter({"oft_blocks": blocks, "alpha": torch.tensor(0.01)}, name, ss_network_module="networks.oft")
    skew = blocks - blocks.mT
    skew = skew * (0.01 * 8) / skew.norm()
    one = torch.eye(4)
    turn = torch.linalg.solve((one - skew).mT, (one + skew).mT).mT
    expected = torch.cat([turn[i].T @ weight[4 * i : 4 * i + 4] for i in range(2)]) - weight
    assert torch.allclose(found.delta(LAYER, weight), expected, atol=1e-6)
    assert sorted(found.state_dict()) == [f"{name}.alpha", f"{name}.oft_blocks"]


def test_a_scale_stands_in_place_of_alpha_over_rank_and_becomes_an_alpha() -> None:
    factors = lora(scale=torch.tensor(0.25))
    found = adapter(factors)
    assert torch.allclose(found.delta(LAYER), 0.25 * product(factors), atol=1e-6)
    assert found.modules[LAYER].alpha == 1.0 and "scale" not in found.modules[LAYER].factors  # every program reads that
    whole = adapter({"lokr_w1": random(2, 3), "lokr_w2": random(4, 4), "scale": torch.tensor(0.25)})
    assert torch.allclose(whole.delta(LAYER), 0.25 * torch.kron(random(2, 3), random(4, 4)))
    assert torch.allclose(
        adapter({"diff": random(8, 12), "scale": torch.tensor(0.5)}).delta(LAYER), 0.5 * random(8, 12)
    )


def test_parts_beside_the_product() -> None:
    """A1111: scale (B A + bias). LyCORIS' extraction keeps the largest numbers of what is left sparsely."""
    dense = random(8, 12, seed=5)
    factors = lora(bias=dense)
    assert torch.allclose(adapter(factors).delta(LAYER), 0.5 * (product(factors) + dense), atol=1e-6)
    sparse = {
        "bias_indices": torch.tensor([[0, 7, 7], [11, 0, 3]], dtype=torch.int16),
        "bias_values": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16),
        "bias_size": torch.tensor([8, 12], dtype=torch.int16),
    }
    extra = torch.zeros(8, 12)
    extra[0, 11], extra[7, 0], extra[7, 3] = 1, 2, 3
    assert torch.allclose(adapter(lora(**sparse)).delta(LAYER), 0.5 * (product(factors) + extra), atol=1e-6)
    loha = {f"hada_w{i}_{side}": random(*shape) for i in (1, 2) for side, shape in (("a", (8, 4)), ("b", (4, 12)))}
    plain = adapter(loha).delta(LAYER)
    assert torch.allclose(adapter(loha | sparse).delta(LAYER), plain + extra, atol=1e-5)
    assert torch.equal(adapter(loha | {"bias_indices": sparse["bias_indices"]}).delta(LAYER), plain)
    for wrong in ({"bias_size": torch.tensor([4, 4])}, {"bias_indices": torch.tensor([[0, 7, 8], [0, 0, 0]])}):
        with pytest.raises(MaquetteError, match=r"bias_(size|indices)"):
            adapter(lora(**sparse | wrong)).delta(LAYER)


def test_changes_of_the_bias() -> None:
    shift = random(8, seed=7)
    found = adapter(lora(diff_b=shift))
    assert torch.equal(found.bias_delta(LAYER) + 0, shift)  # type: ignore[operator]
    assert torch.allclose(found.delta(LAYER), 0.5 * product(lora()))
    alone = adapter({"diff_b": shift})
    assert torch.equal(alone.delta(LAYER, random(8, 12)), torch.zeros(8, 12)) and alone.method == "full"
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    peft = {"lora_A.weight": random(4, 12, seed=1), "lora_B.weight": random(8, 4, seed=2), "lora_B.bias": shift}
    found = adapter(peft | {"alpha": torch.tensor(2.0)}, name)
    assert torch.allclose(found.bias_delta(LAYER), 0.5 * shift)  # type: ignore[arg-type]


def test_peft_names_under_kohyas_module_names() -> None:
    factors = lora()
    renamed = {"lora_A.weight": factors["lora_down.weight"], "lora_B.weight": factors["lora_up.weight"]}
    found = adapter(renamed)
    assert sorted(found.modules[LAYER].factors) == ["lora_down.weight", "lora_up.weight"]
    assert torch.allclose(found.delta(LAYER), product(factors), atol=1e-6)


@pytest.mark.parametrize(
    "factors, told",
    [
        (lora(alpha=torch.tensor([1.0, 2.0])), r"\.alpha holds 2 numbers instead of one"),
        (lora(alpha=torch.tensor(1 + 1j)), r"\.alpha holds complex64 numbers"),
        (lora(alpha=torch.tensor(float("inf"))), r"\.alpha is inf"),
        (lora(scale=torch.tensor(float("nan"))), r"\.scale is nan"),
        (lora(lora_down__weight=torch.tensor(1.0)), r"\.lora_down\.weight has 0 dimensions"),
        (lora(lora_down__weight=torch.ones(12)), r"its factors do not fit each other: lora_up\.weight"),
        (lora(lora_down__weight=torch.ones(0, 12)), r"\.lora_down\.weight is empty"),
        (lora(lora_down__weight=torch.full((4, 12), float("nan"))), r"\.lora_down\.weight holds NaN or infinite"),
        (lora(lora_down__weight=torch.ones(4, 12, dtype=torch.int32)), r"\.lora_down\.weight holds whole numbers"),
        (lora(lora_down__weight=torch.ones(4, 12, dtype=torch.bool)), r"\.lora_down\.weight holds bool numbers"),
        ({"lora_down.weight": random(4, 12)}, r"\.lora_up\.weight is missing"),
        ({"hada_w1_a": random(4, 4)}, r"\.hada_w1_b is missing"),
        ({"lokr_w1": random(4, 4)}, r"\.lokr_w2 is missing"),
        ({"lokr_w1_a": random(4, 4), "lokr_w2": random(4, 4)}, r"\.lokr_w1_b is missing"),
        ({"on_input": torch.tensor(True)}, r"\.weight is missing"),
        (lora(oft_blocks=random(2, 4, 4)), r"\.oft_blocks does not belong to a module of the kind lora"),
        (lora(bias_values=random(3)), r"\.bias_indices is missing"),
        ({"oft_blocks": random(2, 4, 3)}, r"its factors do not fit each other: oft_blocks is \(2, 4, 3\)"),
    ],
    ids=lambda value: value.replace("\\", "")[:40] if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused_where_it_is_read(factors: Factors, told: str) -> None:
    with pytest.raises(MaquetteError, match=rf"^x: .*{LAYER}.*{told}"):
        adapter(factors)


@pytest.mark.parametrize("big", [30_000, 45_000])
def test_shapes_are_compared_before_anything_is_multiplied(big: int) -> None:
    wide = {"lora_down.weight": torch.zeros(1, big), "lora_up.weight": torch.zeros(big, 1)}
    kron = {"lokr_w1": torch.zeros(200, 200), "lokr_w2": torch.zeros(big // 200, big // 200)}
    for factors in (wide, kron):
        with pytest.raises(MaquetteError, match=rf"change a weight of \({big}, {big}\), here it is \(8, 12\)"):
            adapter(factors).delta(LAYER, random(8, 12))
        with pytest.raises(MaquetteError, match="which no layer has"):
            adapter(factors).delta(LAYER)


@pytest.mark.parametrize("part, who", [("oft_R.weight", "OFT in PEFT's form"), ("lambda_layer", "T-LoRA")])
def test_methods_that_are_known_by_name_only(part: str, who: str) -> None:
    with pytest.raises(MaquetteError, match=rf"^x cannot be read as a LoRA: it is {who}, which maquette"):
        adapter({part: random(4, 4)})
