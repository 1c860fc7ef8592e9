import pytest
import torch
from torch import nn

from maquette.errors import MaquetteError
from maquette.methods import attach
from maquette.methods.base import AdaptedLayers, MethodSpec, Slots, has_kernel


class Net(nn.Module):
    """Every kind of layer that is adapted: linear with and without bias, 1 x 1, 3 x 3, 3 x 3 with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.one = nn.Conv2d(4, 6, 1)
        self.three = nn.Conv2d(6, 8, 3, padding=1)
        self.stride = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.mlp = nn.ModuleList([nn.Linear(8, 12), nn.Linear(12, 5, bias=False)])
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) / 2
            p.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stride(torch.tanh(self.three(torch.tanh(self.one(x))))).flatten(2).transpose(1, 2)
        return self.mlp[1](torch.tanh(self.mlp[0](x)))


NAMES = ["one", "three", "stride", "mlp.0", "mlp.1"]


def slots(net: nn.Module) -> Slots:
    found = {}
    for path in NAMES:
        parent, _, attribute = path.rpartition(".")
        found["lora_unet_" + path.replace(".", "_")] = (net.get_submodule(parent), attribute)
    return found


def attached(method: str, net: nn.Module, **spec: object) -> AdaptedLayers:
    """Attach and give every parameter a value of some size, so that nothing is hidden by a start at zero."""
    made = attach(method, slots(net), MethodSpec(**{"rank": 3, "alpha": 2.0, **spec}))  # type: ignore[arg-type]
    assert isinstance(made, AdaptedLayers)
    generator = torch.Generator().manual_seed(1)
    for _, adapter in made.adapters():
        for p in adapter.parameters():
            p.data += torch.randn(p.shape, generator=generator) * 0.3
    return made


X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
METHODS = ["lora", "locon", "dora", "loha", "lokr"]


@pytest.mark.parametrize("method", METHODS)
def test_forward_is_that_of_folded_weights(method: str) -> None:
    net, folded = Net(), Net()
    adapter = attached(method, net, conv_rank=2)
    changed = net(X)
    for path in NAMES:
        delta = adapter.delta("lora_unet_" + path.replace(".", "_"))
        assert delta.abs().max() > 1e-3
        folded.get_submodule(path).weight.data += delta  # type: ignore[union-attr, operator]
    assert (changed - Net()(X)).abs().max() > 0.05
    torch.testing.assert_close(changed, folded(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_multiplier_scales_the_delta(method: str) -> None:
    net, folded = Net(), Net()
    adapter = attached(method, net)
    adapter.set_multiplier(0.0)
    assert torch.equal(net(X), Net()(X))
    adapter.set_multiplier(0.5)
    for path in NAMES:
        folded.get_submodule(path).weight.data += adapter.delta("lora_unet_" + path.replace(".", "_"))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(net(X), folded(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_detach_restores_the_model_bit_for_bit(method: str) -> None:
    net = Net()
    modules, weights = list(net.named_modules()), {k: v.clone() for k, v in net.state_dict().items()}
    adapter = attached(method, net)
    net(X).square().mean().backward()
    with adapter.suspended():
        assert torch.equal(net(X), Net()(X))
    assert not torch.equal(net(X), Net()(X))
    adapter.detach()
    assert list(net.named_modules()) == modules
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_starts_as_the_base_and_state_round_trips(method: str) -> None:
    net, second = Net(), Net()
    fresh = attach(method, slots(net), MethodSpec(rank=3))
    torch.testing.assert_close(net(X), Net()(X), atol=1e-6, rtol=1e-6)
    fresh.detach()
    first = attached(method, net)
    other = attach(method, slots(second), MethodSpec(rank=3, alpha=2.0, seed=5))
    other.load_state(first.state())
    assert torch.equal(second(X), net(X))


@pytest.mark.parametrize("method", ["lora", "locon", "loha", "lokr"])
def test_gradients_are_those_of_finite_differences(method: str) -> None:
    net = Net().double()
    adapter = attached(method, net)
    parameters = [p for group in adapter.parameter_groups().values() for p in group]
    for wrapped in net.modules():
        wrapped.double()
    parameters = [p for group in adapter.parameter_groups().values() for p in group]

    def loss(*_: torch.Tensor) -> torch.Tensor:
        return net(X.double()).square().mean()

    assert torch.autograd.gradcheck(loss, tuple(parameters), atol=1e-6)


def test_keys_and_shapes_are_kohyas() -> None:
    state = attached("locon", Net(), conv_rank=2, conv_alpha=1.0).state()
    assert state["lora_unet_mlp_0.lora_down.weight"].shape == (3, 8)
    assert state["lora_unet_mlp_0.lora_up.weight"].shape == (12, 3)
    assert state["lora_unet_one.lora_down.weight"].shape == (3, 4, 1, 1)
    assert state["lora_unet_one.lora_up.weight"].shape == (6, 3, 1, 1)
    assert state["lora_unet_stride.lora_down.weight"].shape == (2, 8, 3, 3)
    assert state["lora_unet_stride.lora_up.weight"].shape == (8, 2, 1, 1)
    assert state["lora_unet_mlp_0.alpha"].item() == 2 and state["lora_unet_three.alpha"].item() == 1
    assert state["lora_unet_mlp_0.alpha"].shape == ()
    assert len(state) == 15


def test_the_files_reader_computes_the_same_delta() -> None:
    from maquette.adapters.reading import from_state_dict

    for method, spec in [("locon", {"rank_stabilized": True}), ("dora", {})]:
        net = Net()
        adapter = attached(method, net, **spec)
        read = from_state_dict(adapter.state(), {}, "test")
        for path in NAMES:
            name, weight = "lora_unet_" + path.replace(".", "_"), Net().get_submodule(path).weight
            torch.testing.assert_close(read.delta(name, weight), adapter.delta(name), atol=1e-6, rtol=1e-5)  # type: ignore[arg-type]


def test_rank_stabilized_scale_by_hand() -> None:
    net = Net()
    adapter = attach("lora", slots(net), MethodSpec(rank=4, alpha=2.0, rank_stabilized=True))
    assert adapter.state()["lora_unet_mlp_0.alpha"].item() == pytest.approx(2 / 4**0.5 * 4)


def test_a_layers_start_does_not_depend_on_the_others() -> None:
    whole = attach("lora", slots(Net()), MethodSpec(seed=3)).state()
    net = Net()
    alone = attach("lora", {"lora_unet_mlp_0": (net.mlp, "0")}, MethodSpec(seed=3)).state()
    assert torch.equal(whole["lora_unet_mlp_0.lora_down.weight"], alone["lora_unet_mlp_0.lora_down.weight"])
    other = attach("lora", slots(Net()), MethodSpec(seed=4)).state()
    assert not torch.equal(whole["lora_unet_mlp_0.lora_down.weight"], other["lora_unet_mlp_0.lora_down.weight"])


def test_dropouts_apply_in_training_only() -> None:
    for kind in ("dropout", "rank_dropout", "module_dropout"):
        net = Net().eval()
        adapter = attached("lora", net, **{kind: 0.5})
        net.eval()
        assert torch.equal(net(X), net(X))
        for _, part in adapter.adapters():
            part.train()
        torch.manual_seed(0)
        first = net(X)
        assert not torch.equal(first, net(X)), kind
        torch.manual_seed(0)
        assert torch.equal(first, net(X))


def test_bf16_layers_keep_float32_parameters() -> None:
    net = Net().bfloat16()
    adapter = attached("lora", net)
    y = net(X.bfloat16())
    y.float().square().mean().backward()
    groups = adapter.parameter_groups()
    assert y.dtype == torch.bfloat16 and set(groups) == {"unet", "unet_up"}
    assert all(p.dtype == torch.float32 and p.grad is not None for group in groups.values() for p in group)


def test_attaching_twice_is_refused() -> None:
    net = Net()
    attach("lora", slots(net), MethodSpec())
    with pytest.raises(MaquetteError, match="already carries an adapter"):
        attach("lora", slots(net), MethodSpec())


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(MaquetteError, match="lora, locon, dora"):
        attach("lorra", {}, MethodSpec())


def test_state_of_another_shape_is_refused() -> None:
    small = attached("lora", Net(), rank=2).state()
    with pytest.raises(MaquetteError, match=r"lora_unet_one: lora_down\.weight is \(2, 4, 1, 1\), not \(3, 4, 1, 1\)"):
        attached("lora", Net(), rank=3).load_state(small)
    with pytest.raises(MaquetteError, match="lora_unet_mlp_0 is not in both"):
        attached("lora", Net()).load_state({"lora_unet_two.alpha": torch.tensor(1.0)})


def peft_network(magnitude: bool) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=3, lora_alpha=2, target_modules=NAMES, use_dora=magnitude, init_lora_weights=False)
    return inject_adapter_in_model(config, Net())


@pytest.mark.parametrize("magnitude", [False, True])
def test_delta_output_and_gradients_are_pefts(magnitude: bool) -> None:
    """Given the same factors. PEFT's DoRA norms are per output row, which a loaded state may ask for."""
    theirs, net = peft_network(magnitude), Net()
    adapter = attach("dora" if magnitude else "lora", slots(net), MethodSpec(rank=3, alpha=2.0))
    state = {}
    for path in NAMES:
        layer, name = theirs.get_submodule(path), "lora_unet_" + path.replace(".", "_")
        state[f"{name}.lora_down.weight"] = layer.lora_A["default"].weight.detach().clone()  # type: ignore[union-attr, index, operator]
        state[f"{name}.lora_up.weight"] = layer.lora_B["default"].weight.detach().clone()  # type: ignore[union-attr, index, operator]
        if magnitude:
            scale = layer.lora_magnitude_vector["default"].weight  # type: ignore[union-attr, index]
            scale.data *= 1.1
            wide = layer.lora_A["default"].weight.ndim  # type: ignore[union-attr, index, operator]
            state[f"{name}.dora_scale"] = scale.detach().clone().reshape(-1, *[1] * (wide - 1))
    adapter.load_state(state)
    torch.testing.assert_close(net(X), theirs(X), atol=1e-5, rtol=1e-5)
    net(X).square().mean().backward()
    theirs(X).square().mean().backward()
    for path in NAMES:
        layer = theirs.get_submodule(path)
        mine = net.get_submodule(path).adapter
        torch.testing.assert_close(
            mine.lora_down__weight.grad,
            layer.lora_A["default"].weight.grad,
            atol=1e-5,
            rtol=1e-4,  # type: ignore[union-attr, index, operator]
        )
        torch.testing.assert_close(
            mine.lora_up__weight.grad,
            layer.lora_B["default"].weight.grad,
            atol=1e-5,
            rtol=1e-4,  # type: ignore[union-attr, index, operator]
        )
        if not magnitude:
            their_delta = layer.get_delta_weight("default")  # type: ignore[operator]
            torch.testing.assert_close(adapter.delta("lora_unet_" + path.replace(".", "_")), their_delta)


@pytest.mark.parametrize("path", NAMES)
def test_dora_delta_is_lycoris(path: str) -> None:
    """The form with one magnitude per input column, wd_on_out=False there."""
    from lycoris.modules.locon import LoConModule

    net = Net()
    name, layer = "lora_unet_" + path.replace(".", "_"), Net().get_submodule(path)
    adapter = attached("dora", net)
    theirs = LoConModule(name, layer, 1.0, 3, 2.0, weight_decompose=True, wd_on_out=False)
    state = {k.removeprefix(name + "."): v for k, v in adapter.state().items() if k.startswith(name + ".")}
    theirs.lora_down.weight.data = state["lora_down.weight"].clone()
    theirs.lora_up.weight.data = state["lora_up.weight"].clone()
    theirs.dora_scale.data = state["dora_scale"].clone()
    assert theirs.dora_scale.shape == state["dora_scale"].shape
    merged = theirs.get_merged_weight(1.0)[0]
    torch.testing.assert_close(adapter.delta(name), merged - layer.weight, atol=1e-5, rtol=1e-5)  # type: ignore[operator]


def test_has_kernel() -> None:
    assert [has_kernel(Net().get_submodule(path)) for path in NAMES] == [False, True, True, False, False]
