"""LoRAs at another rank and several LoRAs as one: the changes stay what they were, and what is lost is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette import adapters
from maquette.adapters.embeddings import Embedding
from maquette.adapters.file import Adapter
from maquette.core.lowrank import RankRule
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.weights.combine import Weighted, combine
from maquette.weights.products import product_of, svd_of
from maquette.weights.resize import parse_size, resize

LINEAR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"
PROJECTION = "unet.down_blocks.0.attentions.0.proj_in"
NORM = "unet.down_blocks.0.resnets.0.norm1"
SHAPES = {LINEAR: (40, 768), CONV: (36, 24, 3, 3), PROJECTION: (30, 26, 1, 1)}


def lora(rank: int, seed: int = 0, alpha: float | None = None, dtype: torch.dtype = torch.float32) -> Adapter:
    """A LoCon on three kinds of layers; singular values of every size."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, inner, *kernel) in SHAPES.items():
        fall = torch.arange(1, rank + 1).float() ** (-1.5 if kernel else -0.5)
        down = torch.randn(rank, inner, *kernel, generator=generator) * fall.reshape(-1, *[1] * (1 + len(kernel)))
        tensors[f"{name}.lora_down.weight"] = down.to(dtype)
        up = torch.randn(out, rank, *[1] * len(kernel), generator=generator)
        tensors[f"{name}.lora_up.weight"] = up.to(dtype)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return adapters.from_state_dict(tensors, {"ss_base_model_version": "sd_v1"}, f"lora{seed}")


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return float((a - b.reshape(a.shape)).norm()) <= tolerance * float(a.norm())


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_the_same_rank_keeps_every_change(alpha: float | None) -> None:
    adapter = lora(8, alpha=alpha)
    made = resize(adapter, RankRule(rank=8))
    assert made.adapter.modules.keys() == adapter.modules.keys() and made.kept == pytest.approx(1, abs=1e-6)
    for name in SHAPES:
        assert close(adapter.delta(name), made.adapter.delta(name), 1e-6)
        assert made.adapter.modules[name].alpha == made.adapter.modules[name].rank == 8
        assert made.adapter.modules[name].factors["lora_down.weight"].shape[2:] == SHAPES[name][2:]


def test_a_smaller_rank_is_the_best_one() -> None:
    """Against the full SVD of the whole change (Eckart and Young 1936)."""
    adapter = lora(16, alpha=4.0)
    made = resize(adapter, RankRule(rank=5))
    for module in made.modules:
        change = adapter.delta(module.name).flatten(1).double()
        s = torch.linalg.svdvals(change)
        error = float((change - made.adapter.delta(module.name).flatten(1)).norm())
        assert error == pytest.approx(float(s[5:].square().sum().sqrt()), rel=1e-4)
        assert module.kept == pytest.approx(float(s[:5].square().sum() / s.square().sum()), rel=1e-5)
        assert (module.before, module.after) == (16, 5)
    assert made.adapter.metadata["ss_network_dim"] == made.adapter.metadata["ss_network_alpha"] == "5"


def test_several_threads_change_nothing_and_count_each_module_once() -> None:
    told: list[tuple[int, int]] = []
    one, several = (
        resize(lora(16), RankRule(rank=6), on_module=lambda *done: told.append(done), threads=threads)
        for threads in (1, 3)
    )
    assert told == [(1, 3), (2, 3), (3, 3)] * 2
    assert list(one.adapter.modules) == list(several.adapter.modules) == list(SHAPES)
    for name, module in one.adapter.modules.items():
        other = several.adapter.modules[name].factors
        assert all(torch.equal(factor, other[part]) for part, factor in module.factors.items())


def test_convolutions_may_have_a_rank_of_their_own() -> None:
    made = resize(lora(16), RankRule(rank=6), RankRule(rank=2))
    assert {module.name: module.after for module in made.modules} == {LINEAR: 6, CONV: 2, PROJECTION: 6}
    assert made.adapter.metadata["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (RankRule(energy=0.9), lambda s, k: s[:k].square().sum() >= 0.9 * s.square().sum() * (1 - 1e-5)),
        (RankRule(fro=0.9), lambda s, k: s[:k].norm() >= 0.9 * s.norm() * (1 - 1e-5)),
        (RankRule(ratio=5), lambda s, k: s[k - 1] * 5 >= s[0] * (1 - 1e-5)),
        (RankRule(cumulative=0.8), lambda s, k: s[:k].sum() >= 0.8 * s.sum() * (1 - 1e-5)),
    ],
    ids=["energy", "fro", "ratio", "cumulative"],
)
def test_dynamic_ranks(rule: RankRule, holds: Callable[[Tensor, int], bool]) -> None:
    """The rule holds at the rank chosen and, as it is the tightest, not one step on (for a ratio) or back."""
    adapter = lora(16)
    made = resize(adapter, rule)
    assert len({module.after for module in made.modules}) > 1
    for module in made.modules:
        s = torch.linalg.svdvals(adapter.delta(module.name).flatten(1).double())[:16]
        assert holds(s, module.after)
        assert not holds(s, module.after + (1 if rule.ratio else -1))
        assert "alpha" not in made.adapter.modules[module.name].factors  # diffusers would take the commonest for all


def test_a_size_is_kept_and_used(tmp_path: Path) -> None:
    adapter = lora(16)
    adapter.save(tmp_path / "whole.safetensors")
    for dtype, target in ((torch.float32, 24_000), (torch.float32, 40_000), (torch.float16, 24_000)):
        made = resize(adapter, RankRule(), target_bytes=target, dtype=dtype)
        file = tmp_path / f"{target}{dtype}.safetensors"
        made.adapter.save(file, dtype=dtype)
        assert target - 2000 < file.stat().st_size <= target < (tmp_path / "whole.safetensors").stat().st_size
        assert min(module.after for module in made.modules) >= 1
    fixed = max(k for k in range(1, 17) if _size(resize(adapter, RankRule(rank=k)).adapter, tmp_path) <= 40_000)
    assert resize(adapter, RankRule(), target_bytes=40_000).kept >= resize(adapter, RankRule(rank=fixed)).kept
    with pytest.raises(MaquetteError, match=r"lora0: the smallest file of its 3 modules, at rank 1, has 0\.0"):
        resize(adapter, RankRule(), target_bytes=5000)


def _size(adapter: Adapter, folder: Path) -> int:
    adapter.save(folder / "one.safetensors")
    return (folder / "one.safetensors").stat().st_size


def test_the_size_of_a_file_is_known_before_it_is_written(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.int64)}
    for dtype in (None, torch.float16):
        safetensors.save(tensors, tmp_path / "x.safetensors", {"k": "v"}, dtype)
        assert safetensors.file_size(tensors, {"k": "v"}, dtype) == (tmp_path / "x.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("text", "size"), [("20MB", 20_000_000), ("1.5 kB", 1500), ("2MiB", 2 << 20), ("900", 900), ("0.5gb", 500_000_000)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "20 bananas", "-3MB", "0MB"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(MaquetteError, match="is no size of a file; write it as 20MB or 500kB"):
        parse_size(text)


def test_what_stands_beside_the_product_is_kept() -> None:
    """A magnitude (DoRA), a bias and numbers added to the product; the whole change stays the same."""
    torch.manual_seed(0)
    factors = {"lora_down.weight": torch.randn(4, 12), "lora_up.weight": torch.randn(10, 4), "alpha": torch.tensor(2.0)}
    tucker = {"lora_down.weight": torch.randn(4, 12, 1, 1), "lora_mid.weight": torch.randn(4, 4, 3, 3),
              "lora_up.weight": torch.randn(10, 4, 1, 1), "alpha": torch.tensor(2.0)}  # fmt: skip
    beside = {"dora_scale": torch.rand(1, 12), "diff_b": torch.randn(10), "bias": torch.randn(10, 12)}
    state = {f"{LINEAR}.{part}": tensor for part, tensor in (factors | beside).items()}
    state |= {f"{CONV}.{part}": tensor for part, tensor in tucker.items()}
    adapter = adapters.from_state_dict(state, {}, "it")
    made = resize(adapter, RankRule(rank=64)).adapter
    weight = torch.randn(10, 12)
    assert close(adapter.delta(LINEAR, weight), made.delta(LINEAR, weight), 1e-5)
    assert close(adapter.delta(CONV), made.delta(CONV), 1e-5) and made.modules[CONV].rank == 4
    assert torch.equal(made.modules[LINEAR].factors["diff_b"], beside["diff_b"])


def test_other_kinds_stay_as_they_are_and_alone_are_refused() -> None:
    loha = {f"{CONV}.hada_w{i}_{side}": torch.randn(4, 4) for i in (1, 2) for side in "ab"}
    state = {key: t for key, t in lora(4).state_dict().items() if "resnets_0_conv1" not in key} | loha
    made = resize(adapters.from_state_dict(state, {}, "both"), RankRule(rank=2))
    assert made.untouched == [CONV] and made.adapter.modules[CONV].kind == "loha"
    with pytest.raises(
        MaquetteError,
        match=r"only has no rank to change: its modules are of the kind loha. Make a LoRA of it "
        r"first: maquette merge --to lora --lora FILE --rank 16 --out LORA",
    ):
        resize(adapters.from_state_dict(loha, {}, "only"), RankRule(rank=2))
    made_one = combine([Weighted(adapters.from_state_dict(loha, {}, "only"))], RankRule(rank=16)).adapter
    assert resize(made_one, RankRule(rank=2)).modules[0].after == 2


def test_half_precision_stays_half_precision() -> None:
    made = resize(lora(8, dtype=torch.float16), RankRule(rank=4)).adapter
    assert {t.dtype for module in made.modules.values() for t in module.factors.values()} == {torch.float16}


# Several as one


def test_eight_bits_become_sixteen() -> None:
    """Three bits of mantissa hold neither the new factors nor the rank as alpha."""
    before = lora(20, alpha=10.0, dtype=torch.float8_e4m3fn)
    made = resize(before, RankRule(rank=17)).adapter
    for name, module in made.modules.items():
        assert module.factors["lora_down.weight"].dtype == torch.float16 and module.alpha == 17
        svd = svd_of(before.modules[name].factors, 17, None)
        best = torch.linalg.vector_norm(before.delta(name).double()).square() - svd.s[:17].double().square().sum()
        lost = torch.linalg.vector_norm((made.delta(name) - before.delta(name)).double())
        assert float(lost) < 1.01 * float(best.clamp(min=0).sqrt()) + 1e-3 * float(svd.s[0])


def test_the_sum_is_exact() -> None:
    loras = [lora(8, 0, alpha=4.0), lora(3, 1), lora(5, 2, alpha=1.0)]
    weights = (0.7, -1.2, 0.5)
    made = combine([Weighted(one, lambda name, w=w: w) for one, w in zip(loras, weights, strict=True)])
    for name in SHAPES:
        total = sum(w * one.delta(name) for one, w in zip(loras, weights, strict=True))
        assert close(total, made.adapter.delta(name), 1e-6) and made.adapter.modules[name].rank == 16
    assert made.error == 0 and made.adapter.family == "sd1"


def test_the_order_does_not_matter_and_the_full_rank_is_exact_too() -> None:
    loras = [lora(4, seed) for seed in range(3)]
    there = combine([Weighted(one) for one in loras], RankRule(rank=12)).adapter
    back = combine([Weighted(one) for one in reversed(loras)], RankRule(rank=12)).adapter
    for name in SHAPES:
        total = sum(one.delta(name) for one in loras)
        assert close(total, there.delta(name), 1e-6) and close(total, back.delta(name), 1e-6)


def test_a_smaller_rank_is_the_best_one_and_its_error_is_said() -> None:
    loras = [lora(6, seed) for seed in range(2)]
    made = combine([Weighted(one) for one in loras], RankRule(rank=4))
    for module in made.modules:
        total = (loras[0].delta(module.name) + loras[1].delta(module.name)).flatten(1)
        s = torch.linalg.svdvals(total.double())
        assert module.rank == 4 and module.error == pytest.approx(float(s[4:].norm() / s.norm()), rel=1e-3)
        assert close(total, made.adapter.delta(module.name).flatten(1), module.error * 1.001)
    assert 0 < made.error < 1


def test_modules_have_multipliers_of_their_own_and_a_zero_leaves_one_out() -> None:
    made = combine([Weighted(lora(2), lambda name: 0.0 if name == CONV else 2.0)])
    assert CONV not in made.adapter.modules
    assert close(2 * lora(2).delta(LINEAR), made.adapter.delta(LINEAR), 1e-6)
    with pytest.raises(MaquetteError, match="lora0: every multiplier is 0"):
        combine([Weighted(lora(2), lambda name: 0.0)])


def others() -> Adapter:
    """LoKr, LoHa, DoRA, a full difference with a bias, and a norm."""
    torch.manual_seed(3)
    state = {f"{CONV}.lokr_w1": torch.randn(4, 4), f"{CONV}.lokr_w2": torch.randn(9, 6, 3, 3)}
    state |= {f"{PROJECTION}.hada_w{i}_{s}": torch.randn(*((30, 2), (2, 26))[s == "b"]) for i in (1, 2) for s in "ab"}
    state |= {f"{NORM}.w_norm": torch.randn(24), f"{NORM}.b_norm": torch.randn(24)}
    state |= {f"{LINEAR}.lora_down.weight": torch.randn(2, 768), f"{LINEAR}.lora_up.weight": torch.randn(40, 2)}
    return adapters.from_state_dict(state | {f"{LINEAR}.dora_scale": torch.rand(1, 768)}, {}, "others")


@pytest.mark.parametrize("rule", [None, RankRule(rank=36)])
def test_every_kind_can_be_added(rule: RankRule | None) -> None:
    plain, other = lora(2), others()
    bases = {LINEAR: torch.randn(40, 768)}
    made = combine([Weighted(plain), Weighted(other, lambda name: 0.5)], rule, bases.get).adapter
    for name in SHAPES:
        total = plain.delta(name) + 0.5 * other.delta(name, bases.get(name)).reshape(SHAPES[name])
        assert close(total, made.delta(name), 1e-5 if rule is None or min(SHAPES[name][:2]) <= 36 else 0.3), name
    assert torch.allclose(made.modules[NORM].factors["w_norm"], 0.5 * other.modules[NORM].factors["w_norm"])
    assert made.modules[PROJECTION].kind == "lora" if rule is None else True
    with pytest.raises(MaquetteError, match=f"others: module {LINEAR} is DoRA, whose change follows from the base"):
        combine([Weighted(plain), Weighted(other)], rule)


def test_loras_of_different_families_are_refused() -> None:
    xl = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    state = {f"{xl}.lora_down.weight": torch.ones(2, 2048), f"{xl}.lora_up.weight": torch.ones(8, 2)}
    other = adapters.from_state_dict(state, {}, "large")
    with pytest.raises(MaquetteError, match=r"lora0 is a LoRA for Stable Diffusion 1.*, large for .*XL"):
        combine([Weighted(lora(2)), Weighted(other)])


def test_layers_of_different_sizes_are_refused() -> None:
    state = {f"{LINEAR}.lora_down.weight": torch.ones(2, 768), f"{LINEAR}.lora_up.weight": torch.ones(8, 2)}
    other = adapters.from_state_dict(state, {}, "narrow")
    with pytest.raises(MaquetteError, match=r"narrow: module .*to_k changes a weight of \(8, 768\), elsewhere it is"):
        combine([Weighted(lora(2)), Weighted(other)])


def test_words_come_along_once() -> None:
    first, second = lora(2), lora(2, 1)
    first.embeddings = [Embedding("zkw", (torch.ones(2, 768),), "sd1")]
    assert [word.name for word in combine([Weighted(first), Weighted(second)]).adapter.embeddings] == ["zkw"]
    second.embeddings = [Embedding("zkw", (torch.ones(2, 768),), "sd1")]
    with pytest.raises(MaquetteError, match="two of these LoRAs bring the word 'zkw'"):
        combine([Weighted(first), Weighted(second)])


def test_the_factors_of_every_kind_are_exact() -> None:
    """Where a product is given it is the change; singular triples are those of the change."""
    other = others()
    weight = torch.randn(40, 768)
    for name, module in other.modules.items():
        if name == NORM:
            continue
        change = other.delta(name, weight if name == LINEAR else None).flatten(1)
        product = product_of(module.factors)
        assert (product is None) == (name != PROJECTION)
        if product is not None:
            assert product.rank == 4 and close(change, product.up @ product.down, 1e-6)
        svd = svd_of(module.factors, None, weight if name == LINEAR else None)
        assert close(change, (svd.u * svd.s) @ svd.vh, 1e-5)


def test_norms_of_comfyui_and_of_lycoris_are_added() -> None:
    """ComfyUI's extraction writes a norm's change as `diff` and `diff_b`, LyCORIS as `w_norm` and `b_norm`."""
    name = "unet.down_blocks.0.attentions.0.norm"
    comfy = {f"diffusion_model.input_blocks.1.1.norm.{part}": torch.randn(8) for part in ("diff", "diff_b")}
    lycoris = {f"{name}.{part}": torch.randn(8) for part in ("w_norm", "b_norm")}
    shift = {f"{name}.diff_b": torch.randn(8)}
    loras = [adapters.from_state_dict(state, {}, "it") for state in (comfy, lycoris, shift)]
    assert loras[0].modules[name].kind == "norm" and loras[0].method == "norm"
    for rule in (None, RankRule(rank=2)):
        made = combine(
            [Weighted(one, lambda name, w=w: w) for one, w in zip(loras, (2.0, 0.5, 3.0), strict=True)], rule
        )
        factors = made.adapter.modules[name].factors
        weight, bias = list(comfy.values())
        assert torch.equal(factors["w_norm"], 2 * weight + 0.5 * lycoris[f"{name}.w_norm"])
        expected = 2 * bias + 0.5 * lycoris[f"{name}.b_norm"] + 3 * shift[f"{name}.diff_b"]
        assert torch.allclose(factors["b_norm"], expected, atol=1e-6) and factors.keys() == {"w_norm", "b_norm"}


def test_a_change_of_the_bias_alone_leaves_the_others_product_small() -> None:
    low = lora(4)
    shift = adapters.from_state_dict({f"{LINEAR}.diff_b": torch.ones(SHAPES[LINEAR][0])}, {}, "shift")
    made = combine([Weighted(low), Weighted(shift, lambda name: 0.5)]).adapter.modules[LINEAR]
    assert made.rank == 4 and torch.equal(made.factors["diff_b"], torch.full((SHAPES[LINEAR][0],), 0.5))
