import pytest
import torch
from torch import nn

from maquette.errors import MaquetteError
from maquette.methods import attach
from maquette.methods.base import MethodSpec
from maquette.methods.full import FullWeights

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def network(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), nn.GroupNorm(1, 5), nn.Linear(5, 2))
    return nn.ModuleDict({"unet": net.requires_grad_(False).to(dtype)})


def learned(networks: nn.ModuleDict) -> FullWeights:
    made = attach("dreambooth", {"unet": (networks, "unet")}, MethodSpec())
    assert isinstance(made, FullWeights)
    optimizer = torch.optim.SGD(made.parameter_groups()["unet"], lr=0.5)
    networks["unet"](X).square().mean().backward()
    optimizer.step()
    return made


def test_every_parameter_learns_and_delta_says_how_much() -> None:
    networks, before = network(), network()["unet"](X)
    made = learned(networks)
    assert set(made.parameter_groups()) == {"unet"} and len(made.state()) == 6
    names = [f"unet.{name}" for name, _ in networks["unet"].named_parameters()]
    assert all(made.delta(name).abs().max() > 0 for name in names)
    fresh = network()["unet"]
    for name, p in fresh.named_parameters():
        p.data += made.delta(f"unet.{name}")
    torch.testing.assert_close(networks["unet"](X), fresh(X))
    assert not torch.equal(fresh(X), before)


def test_multiplier_suspension_and_detaching_give_back_the_very_tensors() -> None:
    networks = network(torch.float16)
    before = {name: p.data for name, p in networks.named_parameters()}
    made = attach("dreambooth", {"unet": (networks, "unet")}, MethodSpec())
    for group in made.parameter_groups().values():
        for p in group:
            assert p.dtype == torch.float32 and p.requires_grad
            p.data += 1
    made.set_multiplier(0.0)
    assert all(p.data is before[name] or torch.equal(p.data, before[name]) for name, p in networks.named_parameters())
    made.set_multiplier(0.5)
    assert torch.equal(made.delta("unet.0.bias"), torch.full((5,), 0.5))
    assert torch.allclose(networks["unet"][0].bias, before["unet.0.bias"].float() + 0.5)
    made.set_multiplier(1.0)
    with made.suspended():
        assert networks["unet"][0].bias.dtype == torch.float16
    assert networks["unet"][0].bias.dtype == torch.float32
    made.detach()
    for name, p in networks.named_parameters():
        assert p.data.data_ptr() == before[name].data_ptr() and not p.requires_grad


def test_state_round_trips_and_others_are_refused() -> None:
    first, second = learned(network()), learned(network())
    for value in second.state().values():
        value.zero_()
    second.load_state(first.state())
    assert all(torch.equal(a, b) for a, b in zip(first.state().values(), second.state().values(), strict=True))
    with pytest.raises(MaquetteError, match=r"unet\.9\.bias differs"):
        second.load_state({**first.state(), "unet.9.bias": torch.zeros(1)})
    with pytest.raises(MaquetteError, match=r"unet\.0\.bias differs"):
        second.load_state({**first.state(), "unet.0.bias": torch.zeros(1)})


def test_text_encoders_are_a_group_of_their_own() -> None:
    networks = network()
    made = attach("dreambooth", {"unet": (networks, "unet"), "te1": (network(), "unet")}, MethodSpec())
    assert set(made.parameter_groups()) == {"unet", "text_encoder"}


def test_gradients_are_those_of_finite_differences_and_forward_is_that_of_folded_weights() -> None:
    networks = network(torch.float64)
    made = attach("dreambooth", {"unet": (networks, "unet")}, MethodSpec())
    for p in networks.parameters():
        p.data = p.data.double()
    x, parameters = X.double(), tuple(made.parameter_groups()["unet"])
    assert len(parameters) == 6
    assert torch.autograd.gradcheck(lambda *_: networks["unet"](x).square().mean(), parameters, atol=1e-6)
    moved = learned(network())
    folded = network()["unet"]
    for name, p in folded.named_parameters():
        p.data += moved.delta(f"unet.{name}")
    live = network()
    again = attach("dreambooth", {"unet": (live, "unet")}, MethodSpec())
    again.load_state(moved.state())
    torch.testing.assert_close(live["unet"](X), folded(X), atol=1e-5, rtol=1e-5)
