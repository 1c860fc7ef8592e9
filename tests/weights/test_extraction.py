"""Extraction is the inverse of merging: what was added to a model is found again, and what is lost is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from maquette.adapters.file import Adapter
from maquette.core.lowrank import RankRule
from maquette.errors import MaquetteError
from maquette.families import checkpoint, configs
from maquette.families.checkpoint import Checkpoint
from maquette.families.sd.spec import SD1, SD2
from maquette.families.sdxl.spec import SDXL
from maquette.weights import stream
from maquette.weights.extract import Plan, extract
from tests.families import tiny

SPECS = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}
Change = Callable[[str, str, Tensor], Tensor]


@cache
def base_tensors(family: str) -> dict[str, dict[str, Tensor]]:
    """Under the names of a checkpoint, with a small table of words."""
    return {
        part: {
            name.removeprefix("text_model."): t[:50] if "token_embedding" in name else t
            for name, t in network.state_dict().items()
            if not name.endswith("position_ids")
        }
        for part, network in tiny.modules(family).items()
    }


def model(family: str, source: str = "base", change: Change | None = None) -> Checkpoint:
    """A narrow model of a family; change(part, tensor's name, weight) gives the weight of a tuned one."""
    parts = {
        part: {name: change(part, name, t) if change else t.clone() for name, t in tensors.items()}
        for part, tensors in base_tensors(family).items()
    }
    return Checkpoint(
        SPECS[family],
        parts,
        checkpoint.derive_configs(parts, family, source),
        configs.scheduler_config(family, "epsilon", False),
        source,
        [],
    )


def low_rank(rank: int, conv: bool = False) -> Change:
    """A random change of a rank, of every matrix (and kernel) but those of the VAE and tables of words."""

    def change(part: str, name: str, weight: Tensor) -> Tensor:
        if part == "vae" or weight.ndim < 2 or "embedding" in name or (weight.ndim == 4 and not conv):
            return weight.clone()
        generator = torch.Generator().manual_seed(len(name) + weight.numel())
        flat = weight.flatten(1)
        up = torch.randn(len(flat), rank, generator=generator)
        down = torch.randn(rank, flat.shape[1], generator=generator) / flat.shape[1] ** 0.5
        return weight + 0.1 * (up @ down).reshape(weight.shape)

    return change


def noise(part: str, name: str, weight: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(weight.numel())
    return weight if part == "vae" else weight + 0.05 * torch.randn(weight.shape, generator=generator)


def difference(tuned: Checkpoint, base: Checkpoint, name: str) -> tuple[Tensor, Tensor]:
    """What the adapter's module should change, and the base's weight."""
    part, path = stream.layers(base)[name]
    key = f"{path}.weight"
    return tuned.parts[part][key] - base.parts[part][key], base.parts[part][key]


def remaining(adapter: Adapter, tuned: Checkpoint, base: Checkpoint, name: str) -> float:
    change, weight = difference(tuned, base, name)
    return float((change - adapter.delta(name, weight).reshape(change.shape)).norm() / change.norm())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("method", ["lora", "locon"])
def test_what_was_added_is_found_again(family: str, method: str) -> None:
    """At the rank of the change, and above it, to 1e-5; every layer that a trainer of this kind would adapt."""
    base = model(family)
    tuned = model(family, "tuned", low_rank(4, method == "locon"))
    for rank in (4, 7):
        made = extract(tuned, base, Plan(RankRule(rank=rank), method=method))
        assert made.kept == pytest.approx(1, abs=1e-9)
        assert all(remaining(made.adapter, tuned, base, name) < 1e-5 for name in made.adapter.modules)
    networks = {name.partition(".")[0] for name in made.adapter.modules}
    assert networks == {"unet", "text_encoder", *(("text_encoder_2",) if family == "sdxl" else ())}
    prefixes = {key.split("_")[1] for key in made.adapter.state_dict()}
    assert prefixes == {"unet", *(("te1", "te2") if family == "sdxl" else ("te",))}
    has_kernel = {module.kind for module in made.adapter.modules.values()}
    assert has_kernel == ({"lora", "locon"} if method == "locon" else {"lora"})
    assert made.adapter.metadata["ss_base_model_version"] == SPECS[family].base_model_version


def test_the_best_of_a_rank_and_its_error_are_as_by_the_full_svd() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    made = extract(tuned, base, Plan(RankRule(rank=6), method="locon"))
    for layer in made.layers:
        change, _ = difference(tuned, base, layer.name)
        s = torch.linalg.svdvals(change.flatten(1).double())
        best = float(s[6:].norm() / s.norm())
        assert best * (1 - 1e-5) <= layer.error <= 1.03 * best, layer.name
        assert layer.error == pytest.approx(remaining(made.adapter, tuned, base, layer.name), rel=1e-4)
        assert layer.energy == pytest.approx(float(change.square().sum()), rel=1e-4)
    whole = sum(layer.energy for layer in made.layers)
    kept = 1 - sum(layer.energy * layer.error**2 for layer in made.layers) / whole
    assert made.kept == pytest.approx(kept) and made.kept_of_all < made.kept


def test_what_such_a_lora_does_not_hold_is_told() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    lora = extract(tuned, base, Plan(RankRule(rank=2)))
    assert set(lora.left_out) == {
        "convolutions", "norms and biases", "time and input layers", "embeddings of the text encoders",
        "norms and biases of the text encoders",
    }  # fmt: skip
    energy = sum(
        float((tuned.parts["unet"][name] - t).square().sum())
        for name, t in base.parts["unet"].items()
        if t.ndim == 4 and ("resnets" in name or "samplers" in name)
    )
    energy += sum(
        float((tuned.parts["unet"][name] - t).square().sum())
        for name, t in base.parts["unet"].items()
        if "time_emb_proj.weight" in name
    )
    told = lora.left_out["convolutions"]
    assert told <= energy * 1.0001
    assert "convolutions" not in extract(tuned, base, Plan(RankRule(rank=2), method="locon")).left_out


def test_text_encoders_may_be_left_alone() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", low_rank(2))
    made = extract(tuned, base, Plan(RankRule(rank=2), text_encoders=False))
    assert all(name.startswith("unet.") for name in made.adapter.modules)
    assert made.left_out["layers of the text encoders"] > 0


def test_layers_that_do_not_differ_are_left_out() -> None:
    def one(part: str, name: str, weight: Tensor) -> Tensor:
        return weight + 0.01 if name.endswith("attn1.to_q.weight") else weight.clone()

    base, tuned = model("sd1"), model("sd1", "tuned", one)
    made = extract(tuned, base, Plan(RankRule(rank=2)))
    assert made.adapter.modules and all(name.endswith("attn1.to_q") for name in made.adapter.modules)
    assert len(made.unchanged) > len(made.layers)
    with pytest.raises(MaquetteError, match=r"no layer of tuned differs by more than 0\.5 from base; choose a smaller"):
        extract(tuned, base, Plan(RankRule(rank=2), min_difference=0.5))
    with pytest.raises(MaquetteError, match="tuned and base have the same weights in every layer that a lora changes"):
        extract(model("sd1", "tuned"), base, Plan(RankRule(rank=2)))


@pytest.mark.parametrize("rule", [RankRule(energy=0.6), RankRule(ratio=2.0), RankRule(energy=0.6, rank=5)])
def test_a_rule_gives_every_layer_its_rank(rule: RankRule) -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    made = extract(tuned, base, Plan(rule))
    for layer in made.layers:
        s = torch.linalg.svdvals(difference(tuned, base, layer.name)[0].flatten(1).double())
        assert layer.rank is not None and abs(layer.rank - rule.choose(s, float(s.square().sum()))) <= 1
        assert "alpha" not in made.adapter.modules[layer.name].factors or rule.rank
    assert made.adapter.metadata["ss_network_dim"] == ("5" if rule.rank else "Dynamic")


@pytest.mark.parametrize("axis", [0, 1])
def test_dora_holds_changes_of_magnitude_exactly(axis: int) -> None:
    """Weights scaled per output or input: DoRA holds them at rank 1, a LoRA does not."""

    def scaled(part: str, name: str, weight: Tensor) -> Tensor:
        if weight.ndim < 2 or "embedding" in name:
            return weight.clone()
        sides = [1] * weight.ndim
        sides[axis] = weight.shape[axis]
        generator = torch.Generator().manual_seed(weight.numel())
        return weight * (1 + 0.1 * torch.rand(sides, generator=generator))

    base, tuned = model("sd1"), model("sd1", "tuned", scaled)
    dora = extract(tuned, base, Plan(RankRule(rank=1), dora_axis=axis))
    assert dora.adapter.method == "dora" and dora.kept == pytest.approx(1, abs=1e-6)
    assert all(remaining(dora.adapter, tuned, base, name) < 1e-3 for name in dora.adapter.modules)
    assert extract(tuned, base, Plan(RankRule(rank=1))).kept < 0.9


def test_dora_keeps_no_less_than_lora() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    for axis in (0, 1):
        dora = extract(tuned, base, Plan(RankRule(rank=4), dora_axis=axis))
        lora = extract(tuned, base, Plan(RankRule(rank=4)))
        assert dora.kept > lora.kept
        assert all(d.error <= one.error * 1.001 for d, one in zip(dora.layers, lora.layers, strict=True))


@pytest.mark.parametrize("rank", [None, 3])
def test_lokr_finds_a_kronecker_product_again(rank: int | None) -> None:
    def kronecker(part: str, name: str, weight: Tensor) -> Tensor:
        if weight.ndim < 2 or "embedding" in name or weight.shape[0] % 4 or weight.shape[1] % 4:
            return weight.clone()
        generator = torch.Generator().manual_seed(weight.numel())
        sides = (weight.shape[0] // 4, weight[0].numel() // 4)
        second = torch.randn(sides[0], 2, generator=generator) @ torch.randn(2, sides[1], generator=generator)
        return weight + 0.01 * torch.kron(torch.randn(4, 4, generator=generator), second).reshape(weight.shape)

    base, tuned = model("sd1"), model("sd1", "tuned", kronecker)
    made = extract(tuned, base, Plan(RankRule(rank=rank), method="lokr", factor=4))
    assert made.kept == pytest.approx(1, abs=1e-5) and made.adapter.method == "lokr"
    ranked = [module.rank for module in made.adapter.modules.values()]
    assert (set(ranked) == {None}) if rank is None else 3 in ranked
    assert all(remaining(made.adapter, tuned, base, name) < 2e-3 for name in made.adapter.modules)


def test_a_quantile_limits_the_factors() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    free, limited = (extract(tuned, base, Plan(RankRule(rank=4), clamp_quantile=q)) for q in (1.0, 0.9))
    assert 0 < limited.kept < free.kept
    name = free.layers[0].name
    change, _ = difference(tuned, base, name)
    u, s, vh = torch.linalg.svd(change.flatten(1), full_matrices=False)
    up, down = u[:, :4] * s[:4], vh[:4]
    most = float(torch.quantile(torch.cat([up.flatten(), down.flatten()]), 0.9))
    clamped = up.clamp(-most, most) @ down.clamp(-most, most)
    assert torch.allclose(limited.adapter.delta(name).flatten(1), clamped, atol=2e-3 * float(clamped.abs().max()))


def test_half_precision_is_measured_as_it_is_stored() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", low_rank(4))
    made = extract(tuned, base, Plan(RankRule(rank=4), dtype=torch.float16))
    assert 1e-5 < max(layer.error for layer in made.layers) < 2e-3
    assert {t.dtype for m in made.adapter.modules.values() for t in m.factors.values()} == {torch.float16}


def test_models_of_different_families_and_sizes_are_refused() -> None:
    with pytest.raises(MaquetteError, match="tuned is Stable Diffusion XL, base is Stable Diffusion 1: only the"):
        extract(model("sdxl", "tuned"), model("sd1"), Plan(RankRule(rank=2)))
    other = model("sd1", "tuned")
    key = next(name for name in other.parts["unet"] if name.endswith("attn2.to_k.weight"))
    other.parts["unet"][key] = torch.zeros(3, 3)
    with pytest.raises(MaquetteError, match=r"tuned does not come from base: for .*attn2.to_k the base has"):
        extract(other, model("sd1"), Plan(RankRule(rank=2)))
    other.parts["unet"].pop(key)
    with pytest.raises(MaquetteError, match="the tuned model no such layer"):
        extract(other, model("sd1"), Plan(RankRule(rank=2)))
    with pytest.raises(MaquetteError, match="a LoKr is not extracted with a magnitude"):
        extract(model("sd1", "tuned"), model("sd1"), Plan(RankRule(), method="lokr", dora_axis=1))


def test_numbers_that_are_none_are_named() -> None:
    broken = model("sd1", "tuned", low_rank(2))
    key = next(name for name in broken.parts["unet"] if name.endswith("attn2.to_k.weight"))
    broken.parts["unet"][key][0, 0] = math.nan
    with pytest.raises(MaquetteError, match=r"tuned holds NaN or infinite numbers \(unet: .*attn2\.to_k\.weight\)"):
        extract(broken, model("sd1"), Plan(RankRule(rank=2)))


def test_the_same_every_time() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    first, second = (extract(tuned, base, Plan(RankRule(rank=3))).adapter.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_number_of_threads_changes_nothing() -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", noise)
    told: list[tuple[int, int]] = []
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, three = (
            extract(tuned, base, Plan(RankRule(rank=3)), lambda *where: told.append(where), threads)
            for threads in (1, 3)
        )
    finally:
        torch.set_num_threads(torch_threads)
    first, second = one.adapter.state_dict(), three.adapter.state_dict()
    assert list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)
    assert one.layers == three.layers and one.left_out == three.left_out
    count = told[0][1]
    assert told == [(i + 1, count) for i in range(count)] * 2


@pytest.mark.parametrize(("predicts", "said"), [("epsilon", "epsilon"), ("v_prediction", "v"), ("flow", "flow")])
def test_the_lora_says_what_its_base_predicts(predicts: str, said: str) -> None:
    base, tuned = model("sd1"), model("sd1", "tuned", low_rank(1))
    checkpoint.override_prediction(base, predicts)
    assert extract(tuned, base, Plan(RankRule(rank=1))).adapter.metadata["modelspec.prediction_type"] == said
