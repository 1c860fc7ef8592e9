"""What a program cannot carry, as the nearest LoRA: the error that is said is the error that is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette import adapters
from maquette.adapters.file import Adapter
from maquette.cli.main import main
from maquette.core.lowrank import RankRule
from maquette.errors import MaquetteError
from maquette.weights.approximate import carried
from maquette.weights.combine import Weighted, combine
from maquette.weights.compare import compare_adapters

BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
QUERY, KEY, NORM = f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", f"{BLOCK}.norm1"
CONV = "unet.down_blocks.0.resnets.0.conv1"


def loha() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {}
    for name, (out, flat) in {QUERY: (24, 20), CONV: (12, 90)}.items():
        state |= {
            f"{name}.hada_w{i}_{s}": torch.randn(*n) for i in (1, 2) for s, n in (("a", (out, 2)), ("b", (2, flat)))
        }
    return state


def read(state: dict[str, Tensor]) -> Adapter:
    return adapters.from_state_dict(state, {"ss_base_model_version": "sd_v1"}, "it")


@pytest.mark.parametrize("rank", [2, 4, 9])
def test_a_loha_becomes_a_lora(rank: int) -> None:
    """Two products of rank 2 are a change of rank 4: exact from there on, before that the best of its rank."""
    one = read(loha())
    made = carried(one, "diffusers", rank)
    assert {module.kind for module in made.adapter.modules.values()} == {"lora", "locon"} and made.dropped == []
    for told in made.approximated:
        change = one.delta(told.name).flatten(1)
        left = float((change - made.adapter.delta(told.name).flatten(1)).norm() / change.norm())
        s = torch.linalg.svdvals(change.double())
        best = float(s[rank:].norm() / s.norm())
        assert (told.kind, told.rank) == ("loha", min(rank, 4))
        assert told.error == pytest.approx(left, abs=1e-6) and left == pytest.approx(best, abs=1e-5)
    assert made.adapter.modules[CONV].factors["lora_down.weight"].shape[2:] == (3, 3)


@pytest.mark.parametrize(
    ("name", "inputs", "kernel"),
    [
        (CONV, 90, (3, 3)),
        ("unet.conv_in", 36, (3, 3)),
        ("unet.down_blocks.0.downsamplers.0.conv", 90, (3, 3)),
        ("unet.down_blocks.1.resnets.0.conv_shortcut", 20, (1, 1)),
        ("unet.down_blocks.0.attentions.0.proj_in", 20, (1, 1)),
        (QUERY, 20, ()),
    ],
)
def test_a_flat_change_of_a_convolution_gets_its_kernel(name: str, inputs: int, kernel: tuple[int, ...]) -> None:
    """LoHa's factors do not show it, and readers take the shapes of a LoRA from the file."""
    torch.manual_seed(0)
    state = {f"{name}.hada_w{i}_{s}": torch.randn(*n) for i in (1, 2) for s, n in (("a", (12, 2)), ("b", (2, inputs)))}
    one = read(state)
    product = (state[f"{name}.hada_w1_a"] @ state[f"{name}.hada_w1_b"]) * (
        state[f"{name}.hada_w2_a"] @ state[f"{name}.hada_w2_b"]
    )
    exact, whole = combine([Weighted(one)]), combine([Weighted(one)], RankRule(rank=12))
    for made in (exact.adapter, whole.adapter, carried(one, "diffusers", 12).adapter):
        factors = made.modules[name].factors
        assert factors["lora_down.weight"].shape[2:] == kernel
        assert factors["lora_up.weight"].shape[2:] == torch.Size([1] * len(kernel))
        assert torch.allclose(made.delta(name).flatten(1), product, atol=1e-5)


def test_a_norm_of_comfyui_is_no_matrix() -> None:
    name = "diffusion_model.input_blocks.1.1.norm"
    one = read(loha() | {f"{name}.diff": torch.ones(20), f"{name}.diff_b": torch.ones(20)})
    assert carried(one, "diffusers", 2).dropped == ["unet.down_blocks.0.attentions.0.norm"]
    assert compare_adapters(one, one).whole.cosine == pytest.approx(1)


def test_the_metadata_are_those_of_a_lora() -> None:
    told = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha"}', "ss_network_dim": "2"}
    one = adapters.from_state_dict(loha(), told | {"ss_base_model_version": "sd_v1", "note": "kept"}, "it")
    metadata = carried(one, "diffusers", 3).adapter.metadata
    assert metadata["ss_network_module"] == "networks.lora" and "ss_network_args" not in metadata
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"], metadata["note"]) == ("3", "3", "kept")
    assert carried(one, "kohya", None).adapter.metadata == one.metadata


def test_a_dora_per_input_becomes_one_per_output() -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 20)
    low = {f"{QUERY}.lora_down.weight": 0.1 * torch.randn(2, 20), f"{QUERY}.lora_up.weight": torch.randn(24, 2)}
    one = read(low | {f"{QUERY}.dora_scale": weight.norm(dim=0, keepdim=True) * (1 + 0.1 * torch.rand(1, 20))})
    made = carried(one, "peft", 20, {QUERY: weight}.get)
    assert made.adapter.modules[QUERY].factors["dora_scale"].shape == (24, 1)
    assert torch.allclose(made.adapter.delta(QUERY, weight), one.delta(QUERY, weight), atol=1e-4)
    few = carried(one, "peft", 4, {QUERY: weight}.get)
    assert few.approximated[0].error == pytest.approx(few.error) and 0 < few.error < 0.9
    with pytest.raises(MaquetteError, match=f"it: module {QUERY} is DoRA, whose change follows from the"):
        carried(one, "peft", 4)


def test_what_is_no_matrix_is_left_out_by_name() -> None:
    state = loha() | {f"{NORM}.w_norm": torch.ones(20), f"{KEY}.diff": torch.randn(24, 20)}
    made = carried(read(state | {f"{KEY}.diff_b": torch.ones(24)}), "diffusers", 30)
    assert sorted(made.dropped) == sorted([NORM, f"{KEY}.diff_b"]) and KEY in made.adapter.modules
    with pytest.raises(MaquetteError, match="it holds nothing that diffusers could carry"):
        carried(read({f"{NORM}.w_norm": torch.ones(20)}), "diffusers", 4)
    with pytest.raises(MaquetteError, match=r"it: say at which rank .* \(loha\) becomes a LoRA, for example --rank 16"):
        carried(read(loha()), "diffusers", None)


@pytest.mark.parametrize("target", ["diffusers", "peft", "comfyui", "onetrainer", "attn-procs"])
def test_names_of_no_layer_are_left_out_by_name(target: str) -> None:
    strange = "lora_unet_strange_thing"
    state = {f"{name}.lora_down.weight": torch.ones(2, 20) for name in (QUERY, strange)}
    state |= {f"{name}.lora_up.weight": torch.ones(24, 2) for name in (QUERY, strange)}
    made = carried(read(state), target, None)
    assert (made.dropped, list(made.adapter.modules), made.approximated) == ([strange], [QUERY], [])


def test_layers_beside_attention_have_no_processor() -> None:
    made = carried(read(loha()), "attn-procs", 4)
    assert made.dropped == [CONV] and [one.name for one in made.approximated] == [QUERY]


def test_a_folder_of_peft_has_one_kind() -> None:
    low = {f"{KEY}.lora_down.weight": torch.randn(2, 20), f"{KEY}.lora_up.weight": torch.randn(24, 2)}
    assert {m.kind for m in carried(read(loha()), "peft", None).adapter.modules.values()} == {"loha"}
    made = carried(read(loha() | low), "peft", 4)
    assert {m.kind for m in made.adapter.modules.values()} == {"lora", "locon"} and len(made.approximated) == 2


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_the_command_counts_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(loha() | {f"{NORM}.w_norm": torch.ones(20)}).save(tmp_path / "it.safetensors")
    source, out = str(tmp_path / "it.safetensors"), str(tmp_path / "out.safetensors")
    assert outcome("convert", source, "--to", "diffusers", "--out", out) == 1
    assert "cannot be written for diffusers" in capsys.readouterr().err
    assert outcome("convert", source, "--to", "comfyui", "--out", str(tmp_path / "comfy.safetensors")) == 0
    assert capsys.readouterr().out == "3/3 modules, 0 dropped\n"
    assert outcome("convert", source, "--to", "diffusers", "--out", out, "--lossy", "--rank", "2") == 0
    told = capsys.readouterr()
    assert told.out == "2/3 modules, 1 dropped\n"
    text = " ".join(told.err.split())
    assert "2 modules are written as LoRAs near to them; relative error" in text and NORM in text
    arguments = ("--to", "peft", "--out", str(tmp_path / "p"), "--lossy", "--rank", "2", "--json")
    assert outcome("convert", source, *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["modules"], result["written"], result["dropped"]) == (3, 2, [NORM])
    assert {one["kind"] for one in result["approximated"]} == {"loha"}


def test_a_pickle_says_what_it_loses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(loha()).save(tmp_path / "it.safetensors")
    assert outcome("convert", str(tmp_path / "it.safetensors"), "--to", "kohya", "--out", str(tmp_path / "it.pt")) == 0
    assert "it.pt is a pickle, which holds none of the LoRA's metadata" in " ".join(capsys.readouterr().err.split())
