"""LoHa and LoKr against the libraries that define them, given the same factors."""

import pytest
import torch
from torch import nn

from maquette.adapters.reading import from_state_dict
from maquette.core.seeds import seeded
from maquette.methods import attach, loha
from maquette.methods.base import MethodSpec
from maquette.methods.lokr import split

LAYERS = {
    "linear": lambda: nn.Linear(24, 40),
    "one": lambda: nn.Conv2d(24, 40, 1),
    "three": lambda: nn.Conv2d(24, 40, 3, padding=1),
    "stride": lambda: nn.Conv2d(24, 40, 3, stride=2, padding=1, bias=False),
}
NAME = "lora_unet_x"


def adapted(kind: str, method: str, **spec: object) -> tuple[nn.Module, nn.Module, object]:
    """A holder whose layer carries an adapter with factors of some size, a layer like it, and the adapter."""
    torch.manual_seed(0)
    holder, plain = nn.Module(), LAYERS[kind]()
    holder.layer = LAYERS[kind]()
    holder.layer.load_state_dict(plain.state_dict())
    made = attach(method, {NAME: (holder, "layer")}, MethodSpec(**{"rank": 3, "alpha": 2.0, **spec}))  # type: ignore[arg-type]
    for group in made.parameter_groups().values():
        for p in group:
            p.data += torch.randn(p.shape) * 0.2
    return holder, plain, made


def parts(made: object) -> dict[str, torch.Tensor]:
    return {key.removeprefix(NAME + "."): value for key, value in made.state().items()}  # type: ignore[attr-defined]


def x_for(kind: str) -> torch.Tensor:
    return torch.randn(2, 5, 24) if kind == "linear" else torch.randn(2, 24, 6, 6)


CASES = [("loha", {}), ("lokr", {"factor": 4}), ("lokr", {"factor": 4, "rank": 100}), ("lokr", {"factor": 7})]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("method", "spec"), CASES)
def test_forward_delta_and_file_agree(kind: str, method: str, spec: dict[str, int]) -> None:
    holder, plain, made = adapted(kind, method, **spec)
    delta = made.delta(NAME)  # type: ignore[attr-defined]
    read = from_state_dict(made.state(), {}, "test").delta(NAME, plain.weight)  # type: ignore[attr-defined, arg-type]
    torch.testing.assert_close(delta, read, atol=1e-6, rtol=1e-5)
    x = x_for(kind)
    before = plain(x)
    plain.weight.data += delta  # type: ignore[operator, union-attr]
    torch.testing.assert_close(holder.layer(x), plain(x), atol=1e-5, rtol=1e-5)  # type: ignore[operator]
    assert (plain(x) - before).abs().max() > 0.01


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("method", "spec"), CASES)
def test_delta_and_gradients_are_those_of_lycoris(kind: str, method: str, spec: dict[str, int]) -> None:
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    holder, plain, made = adapted(kind, method, **spec)
    rank = spec.get("rank", 3)
    if method == "loha":
        theirs = LohaModule(NAME, plain, 1.0, rank, 2.0)
    else:
        theirs = LokrModule(NAME, plain, 1.0, rank, 2.0, factor=spec["factor"])
    mine = parts(made)
    names = [name for name, _ in theirs.named_parameters() if name in mine]
    assert set(names) == set(mine) - {"alpha"}
    for name in names:
        assert getattr(theirs, name).shape == mine[name].shape
        getattr(theirs, name).data = mine[name].clone()
    # get_weight: their get_diff_weight multiplies by alpha / rank twice, their forward pass does not
    torch.testing.assert_close(made.delta(NAME), theirs.get_weight(plain.weight.shape), atol=1e-6, rtol=1e-5)  # type: ignore[attr-defined]
    x = x_for(kind)
    theirs.apply_to()
    weights = torch.randn_like(plain(x))
    (plain(x) * weights).sum().backward()  # type: ignore[operator]
    (holder.layer(x) * weights).sum().backward()  # type: ignore[operator]
    adapter = holder.layer.adapter  # type: ignore[union-attr]
    for name in names:
        expected = getattr(theirs, name).grad
        torch.testing.assert_close(getattr(adapter, name).grad, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "factor", "expected"), [
    (320, 8, (8, 40)), (320, 16, (16, 20)), (12, 8, (3, 4)), (16, 8, (2, 8)), (7, 8, (1, 7)), (1280, 7, (5, 256)),
    (360, -1, (18, 20)), (1280, -1, (32, 40)), (7, -1, (1, 7)), (1024, -1, (32, 32)),
])  # fmt: skip
def test_split_by_hand_and_as_lycoris(size: int, factor: int, expected: tuple[int, int]) -> None:
    from lycoris.functional.general import factorization

    assert split(size, factor) == expected == factorization(size, factor)


def test_peft_reads_the_same_delta() -> None:
    from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model

    for method, config in [
        ("loha", LoHaConfig(r=3, alpha=2, target_modules=["layer"])),
        ("lokr", LoKrConfig(r=3, alpha=2, target_modules=["layer"], decompose_factor=4)),
    ]:
        _, plain, made = adapted("linear", method, factor=4)
        holder = nn.Module()
        holder.layer = plain
        theirs = inject_adapter_in_model(config, holder).layer
        for part, value in parts(made).items():
            if part != "alpha":
                getattr(theirs, part)["default"].data = value.clone()  # type: ignore[index, operator]
        torch.testing.assert_close(made.delta(NAME), theirs.get_delta_weight("default"), atol=1e-6, rtol=1e-5)  # type: ignore[attr-defined, operator]


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(24, 20), nn.Conv2d(12, 16, 1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)],
    ids=["linear", "1x1", "3x3", "stride 2"],
)
def test_both_ways_of_loha_are_one(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """By columns on the activations, or with the whole weight: the same outputs and gradients."""
    layer.requires_grad_(False)
    torch.manual_seed(3)
    adapter = loha.LoHaLayer(layer, MethodSpec(rank=3, alpha=2.0), seeded(0, "x"))
    nn.init.normal_(adapter.hada_w2_a)
    x = torch.randn(2, 5, 24) if isinstance(layer, nn.Linear) else torch.randn(2, layer.in_channels, 6, 6)
    results = []
    for making in (10**9, -(10**9)):
        monkeypatch.setattr(loha, "WEIGHT_COST", making)
        assert adapter._low_rank_is_cheaper(x, layer) == (making > 0)
        y = adapter(x, layer)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(adapter.parameters()))])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
