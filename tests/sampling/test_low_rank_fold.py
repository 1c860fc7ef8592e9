"""A LoRA's product added to a weight in blocks of rows, and memory used again from one LoRA to the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from maquette import families
from maquette.adapters.file import Adapter, AdapterModule
from maquette.families.base import BaseModel
from maquette.fast import memory
from maquette.sampling import hot_loras
from maquette.sampling.apply_loras import Folded
from maquette.sampling.hot_loras import HotLoras
from maquette.sampling.lora_tags import Wish
from maquette.sampling.low_rank_fold import BLOCK, LowRank
from tests.sampling.random_loras import random_adapter


def adapter(up: torch.Tensor, down: torch.Tensor, **more: torch.Tensor) -> Adapter:
    module = AdapterModule({"lora_up.weight": up, "lora_down.weight": down, **more})
    return Adapter("sd1", "lora", {"lora_unet_x": module})


SHAPES = {"several blocks": (1100, 1500), "linear": (24, 40), "pointwise": (24, 40, 1, 1), "kernel": (24, 12, 3, 3)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_blocks_make_the_sum_of_the_whole_product(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """W + m a/r B A, in float32 and rounded once."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=random).to(dtype)
    up = torch.randn(shape[0], 4, *(1 for _ in shape[2:]), generator=random).half()
    down = torch.randn(4, *shape[1:], generator=random).half()
    made = LowRank.of(adapter(up, down, alpha=torch.tensor(3.0)), "lora_unet_x", weight, 0.7)
    assert made is not None
    change = (up.float().flatten(1) @ down.float().flatten(1)) * 0.75 * 0.7
    wanted = weight.double() + change.double().reshape(shape)
    rounding = torch.finfo(dtype).eps / 2 + 1e-6
    assert ((made.added(weight).double() - wanted).abs() <= rounding * wanted.abs() + 1e-5).all()
    assert len(SHAPES) == 4 and 2 * BLOCK < 1100 * 1500


def test_a_matrix_changes_a_pointwise_kernel_and_others_take_the_long_way() -> None:
    weight, up, down = torch.zeros(6, 5, 1, 1), torch.ones(6, 2), torch.ones(2, 5)
    made = LowRank.of(adapter(up, down), "lora_unet_x", weight, 1.0)
    assert made is not None and torch.equal(made.added(weight), torch.full((6, 5, 1, 1), 2.0))
    name = "lora_unet_x"
    assert LowRank.of(adapter(up, down, dora_scale=torch.ones(6, 1)), name, weight, 1.0) is None
    assert LowRank.of(adapter(up, down), name, torch.zeros(6, 7, 1, 1), 1.0) is None
    assert LowRank.of(adapter(up, down), name, weight.double(), 1.0) is None
    assert LowRank.of(adapter(up, down), name, torch.zeros(5, 6).t(), 1.0) is None  # laid out by columns


@pytest.mark.parametrize("states", [1, 3])
def test_going_back_to_the_loras_before_folds_nothing(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """states: of the weights, for which there is room beside those in use."""
    base, folded = families.load("pocket"), []
    fold = Folded.of

    def heard(base: BaseModel, wanted: Sequence[Wish], *rest: Any, **options: Any) -> Any:
        folded.extend(wish.adapter for wish in wanted)
        return fold(base, wanted, *rest, **options)

    monkeypatch.setattr(Folded, "of", heard)
    one, two, three = ([Wish(random_adapter(base, seed=i), 1.0, 1.0)] for i in range(3))
    parameters = [p for network in base.networks for p in network.parameters()]
    originals = [p.data_ptr() for p in parameters]
    hot, places = HotLoras(base), []
    hot.set(one)
    size = sum(tensor.numel() * 4 for tensor in hot._take_out().weights.values())
    folded.clear()
    monkeypatch.setattr(hot_loras, "room", lambda: int(size * (states + 0.5)))
    for wanted in (one, two, one, [], one, two, [], three, two, one):
        assert [a.matched for a in hot.set(wanted)] == [len(w.adapter.modules) for w in wanted]
        places.append([p.data_ptr() for p in parameters])
    names = {id(wanted[0].adapter): name for wanted, name in ((one, "one"), (two, "two"), (three, "three"))}
    again = {1: ["two", "three", "one"], 3: ["three"]}[states]
    assert [names[id(adapter)] for adapter in folded] == ["one", "two", *again]
    assert places[0] == places[2] == places[4] and places[5] == places[8] and places[3] == places[6] == originals
    fresh = HotLoras(families.load("pocket"))
    fresh.set(one)
    alone = [p for network in fresh.base.networks for p in network.parameters()]
    assert all(torch.equal(p, w) for p, w in zip(parameters, alone, strict=True))
    hot.clear()
    hot.set(two)
    assert names[id(folded[-1])] == "two"  # nothing was kept


def test_room_is_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, int] = {"SC_PHYS_PAGES": 1 << 23, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf_names", told)
    monkeypatch.setattr(os, "sysconf", told.get)
    assert hot_loras.room() == memory.installed() // 10 == (1 << 35) // 10
    told["SC_PHYS_PAGES"] = 1 << 20
    assert hot_loras.room() == hot_loras.LEAST_ROOM
    monkeypatch.delattr(os, "sysconf")
    assert hot_loras.room() == hot_loras.LEAST_ROOM and memory.installed() is None


def test_a_switch_writes_into_the_memory_of_the_lora_before_and_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is too large to be kept beside."""
    monkeypatch.setattr(hot_loras, "room", lambda: 0)
    base = families.load("pocket")
    first, second = random_adapter(base), random_adapter(base, seed=1)
    parameters = [p for network in base.networks for p in network.parameters()]
    originals, copies = [p.data for p in parameters], [p.detach().clone() for p in parameters]
    hot = HotLoras(base)
    hot.set([Wish(second, 1.0, 1.0)])
    wanted = [p.detach().clone() for p in parameters]
    hot.clear()
    hot.set([Wish(first, 1.0, 1.0)])
    places = [p.data_ptr() for p in parameters]
    hot.set([Wish(second, 1.0, 1.0)])
    assert [p.data_ptr() for p in parameters] == places
    assert all(torch.equal(p, w) for p, w in zip(parameters, wanted, strict=True))
    hot.clear()
    assert all(p.data_ptr() == o.data_ptr() for p, o in zip(parameters, originals, strict=True))
    assert all(torch.equal(p, c) for p, c in zip(parameters, copies, strict=True))
    assert any(not torch.equal(w, c) for w, c in zip(wanted, copies, strict=True))
