"""LoRAs that are computed beside large layers: which layers, to what answer, and without a trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from maquette import families
from maquette.adapters.file import Adapter, AdapterModule
from maquette.families.base import BaseModel
from maquette.sampling import thin_products
from maquette.sampling.apply_loras import apply_loras
from maquette.sampling.hot_loras import HotLoras
from maquette.sampling.lora_tags import Wish
from maquette.sampling.low_rank_fold import LowRank
from maquette.sampling.thin_products import Thin
from tests.sampling.random_loras import random_adapter

UNET, KEYS, TEXT = "unet.x.attn1.to_k", "unet.x.attn2.to_k", "text_encoder.text_model.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize(
    ("name", "layer", "rank", "beside"),
    [
        (UNET, nn.Linear(1280, 1280), 16, True),
        (UNET, nn.Linear(1280, 1280), 20, True),  # 20 (1 / 1280 + 1 / 1280) is 1 / 32
        (UNET, nn.Linear(1280, 1280), 21, False),
        (UNET, nn.Linear(640, 640), 16, False),
        (UNET, nn.Linear(640, 5120), 16, True),
        (UNET, nn.Conv2d(1280, 1280, 1), 16, True),
        (UNET, nn.Conv2d(1280, 1280, 1, stride=2), 16, False),
        (KEYS, nn.Linear(768, 320), 64, True),
        (TEXT, nn.Linear(768, 768), 64, True),
        (TEXT, nn.Linear(8, 8, device="meta"), 1, False),
    ],
)
def test_where_it_costs_little(name: str, layer: nn.Linear | nn.Conv2d, rank: int, beside: bool) -> None:
    outer, inner = layer.weight.shape[:2]
    change = LowRank(torch.ones(outer, rank), torch.ones(rank, inner), ())
    assert (Thin.of(name, layer, change) is not None) == beside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [nn.Linear(40, 24), nn.Conv2d(40, 24, 1)], ids=["linear", "pointwise"])
def test_the_answer_is_the_folded_layers(layer: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> None:
    """m a/r B A x more, to the rounding of the type, whatever the input's number of dimensions."""
    random = torch.Generator().manual_seed(0)
    layer = layer.to(dtype).requires_grad_(False)
    up, down = torch.randn(24, 4, generator=random), torch.randn(4, 40, generator=random)
    module = AdapterModule({"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(3.0)})
    plain = LowRank.of(Adapter("sd1", "lora", {TEXT: module}), TEXT, layer.weight.flatten(1), 0.7)
    assert plain is not None
    thin = Thin.of(TEXT, layer, plain)
    assert thin is not None and thin.size == (24 * 4 + 4 * 40) * dtype.itemsize
    shapes = [(3, 40, 5, 7)] if isinstance(layer, nn.Conv2d) else [(3, 5, 40), (2, 40), (40,)]
    for shape in shapes:
        x = torch.randn(shape, generator=random).to(dtype)
        before = layer(x)
        handle = layer.register_forward_hook(thin.added)
        answer = layer(x)
        handle.remove()
        change = 0.7 * 0.75 * (up.double() @ down.double())
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        more = torch.tensordot(x.double(), change, dims=([axis], [1]))
        if isinstance(layer, nn.Conv2d):
            more = more.movedim(-1, 1)
        wanted = before.double() + more
        assert (answer.double() - wanted).abs().max() <= 8 * torch.finfo(dtype).eps * wanted.abs().max()
        assert torch.equal(layer(x), before)


def answer(base: BaseModel) -> Tensor:
    """Of the text encoder and, told its text, of the UNet."""
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return base.predict(x, torch.tensor([400]), base.encode_text(["a photo of a cat"]))


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """pocket's layers count as wide, of which some are beside and some not."""
    monkeypatch.setattr(thin_products, "MOST", 0.05)


@pytest.mark.usefixtures("wide")
def test_a_network_answers_as_with_the_weights_folded(base: BaseModel) -> None:
    adapter, plain = random_adapter(base), answer(base)
    with apply_loras(base, [(adapter, 0.5, 0.8)]):
        folded = answer(base)
    hot = HotLoras(base)
    hot.set([Wish(adapter, 0.5, 0.8)])
    kinds = {type(module).__name__ for module in hot._now.beside}
    of_text = [module for encoder in base.text_encoders for module in encoder.modules() if module in hot._now.beside]
    assert len(kinds) == 2 and of_text and hot._originals  # matrices and kernels; of both networks; and some folded
    assert not hot._originals.keys() & {module.weight for module in hot._now.beside}
    assert (answer(base) - folded).abs().max() < 1e-4 * folded.abs().max() < (folded - plain).abs().max() * 1e-1
    hot.clear()
    assert torch.equal(answer(base), plain)


@pytest.mark.usefixtures("wide")
def test_what_was_there_before_has_no_influence(base: BaseModel) -> None:
    one, two = ([Wish(random_adapter(base, seed=seed), 0.7, 0.7)] for seed in (0, 1))
    hot, answers = HotLoras(base), []
    for wanted in (one, two, one, [], one):
        hot.set(wanted)
        answers.append(answer(base))
    assert torch.equal(answers[0], answers[2]) and torch.equal(answers[0], answers[4])
    assert not torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[3])
    hot.clear()
    hot.set(two)
    assert torch.equal(answer(base), answers[1])
    hot.clear()
    assert torch.equal(answer(base), answers[3])


@pytest.mark.usefixtures("wide")
def test_two_loras_in_either_order_and_one_beside_one_of_no_strength(base: BaseModel) -> None:
    one, two = (random_adapter(base, seed=seed) for seed in (0, 1))
    hot = HotLoras(base)

    def answer_with(*wanted: Wish) -> Tensor:
        hot.set(list(wanted))
        return answer(base)

    both = answer_with(Wish(one, 0.6, 0.6), Wish(two, 0.4, 0.4))
    assert not hot._now.beside  # no layer has one alone
    assert torch.equal(answer_with(Wish(two, 0.4, 0.4), Wish(one, 0.6, 0.6)), both)
    alone = answer_with(Wish(one, 0.6, 0.6))
    assert hot._now.beside and not torch.equal(alone, both)
    assert torch.equal(answer_with(Wish(one, 0.6, 0.6), Wish(two, 0.0, 0.0)), alone)
    assert torch.equal(answer_with(Wish(two, 0.0, 0.0), Wish(one, 0.6, 0.6)), alone)
    answer_with(Wish(one, 0.6, 0.6), Wish(two, 0.4, 0.0))
    assert hot._now.beside  # in the UNet, not in the text encoder
    assert not any(module in hot._now.beside for encoder in base.text_encoders for module in encoder.modules())
    hot.clear()
