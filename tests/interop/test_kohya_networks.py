"""Kohya's networks: numbered blocks, LyCORIS' presets and what is silent in a command."""

import itertools
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from maquette import families
from maquette.adapters.kohya_names import written
from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.families.trainable import kohya_names
from maquette.interop.kohya import blocks as kohya_blocks
from maquette.interop.kohya import network as kohya_network
from maquette.interop.kohya import read as import_kohya
from maquette.methods.spec import spec_of
from maquette.stages import command
from maquette.training.attaching import unet_slots

sys.path.append(str(Path(__file__).parent.parent / "families"))
import tiny

RUN: dict[str, Any] = {"photos": "photos", "subject": "zkw robot", "steps": 100, "rank": 16, "alpha": 8.0}


@pytest.mark.parametrize(
    ("name", "xl", "number"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", False, 1),
        ("lora_unet_down_blocks_0_resnets_1_conv1", False, 2),
        ("lora_unet_down_blocks_0_downsamplers_0_conv", False, 3),
        ("lora_unet_down_blocks_2_attentions_1_proj_in", False, 8),
        ("lora_unet_down_blocks_3_resnets_1_conv2", False, 11),
        ("lora_unet_mid_block_attentions_0_proj_out", False, 12),
        ("lora_unet_mid_block_resnets_1_conv2", False, 12),
        ("lora_unet_up_blocks_0_resnets_0_conv1", False, 13),
        ("lora_unet_up_blocks_0_upsamplers_0_conv", False, 15),
        ("lora_unet_up_blocks_3_attentions_2_proj_out", False, 24),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", False, None),
        ("lora_unet_input_blocks_3_0_op", True, 4),
        ("lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_v", True, 9),
        ("lora_unet_middle_block_1_proj_in", True, 11),
        ("lora_unet_output_blocks_0_1_proj_in", True, 13),
        ("lora_unet_output_blocks_8_0_skip_connection", True, 21),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", True, None),
    ],
)
def test_blocks_have_kohyas_numbers(name: str, xl: bool, number: int | None) -> None:
    found = kohya_blocks.place(name, xl)
    assert (found and found[0]) == number


@cache
def layers(xl: bool) -> dict[str, bool]:
    """Every layer of a UNet's LoCon, and whether it has a kernel."""
    found = {}
    for key, shape in kohya_names("sdxl" if xl else "sd1", conv=True).items():
        name, _, what = key.partition(".")
        if what == "lora_down.weight" and name.startswith("lora_unet_"):
            found[name] = len(shape) == 4 and shape[2] == 3
    return found


@pytest.mark.parametrize("xl", [False, True])
@pytest.mark.parametrize("conv", ["none", "one rank", "lists"])
def test_every_layer_gets_its_blocks_numbers(xl: bool, conv: str) -> None:
    size = 23 if xl else 25
    dims, alphas = [*range(2, size), 0, 16], [i / 2 + 1 for i in range(size)]
    dims[4] = 0
    given = {"block_dims": ",".join(map(str, dims)), "block_alphas": ",".join(map(str, alphas))}
    conv_dims, conv_alphas = [5] * size, [1.0] * size
    if conv == "lists":
        conv_dims, conv_alphas = [*range(3, size), 0, 5, 9], [4.0] * size
        given |= {
            "conv_block_dims": ",".join(map(str, conv_dims)),
            "conv_block_alphas": ",".join(map(str, conv_alphas)),
        }
    ranks, strengths = kohya_blocks.read(given, (16, 8.0), (5, 1.0) if conv != "none" else None, "x.sh")
    config = TrainConfig.parse(
        {**RUN, "method": "lora" if conv == "none" else "locon", "block_ranks": ranks, "block_alphas": strengths}
        | ({} if conv == "none" else {"conv_rank": 5, "conv_alpha": 1.0})
    )
    spec, seen = spec_of(config), 0
    for name, kernel in layers(xl).items():
        if conv == "none" and not re.search(r"transformer_blocks|proj_(in|out)$", name):
            continue
        place = kohya_blocks.place(name, xl)
        assert place is not None, name
        wanted = [(a[place[0]], b[place[0]]) for a, b in ((dims, alphas), (conv_dims, conv_alphas))][kernel]
        if wanted[0] == 0:
            assert spec.block_rank(name) == 0, name
        else:
            assert spec.for_module(name).rank_and_alpha(kernel) == wanted, name
        seen += 1
    assert seen == (722 if xl else 192) or (conv != "none" and seen > 200)
    for pattern in [*ranks, *strengths]:  # a run refuses patterns without a layer
        assert any(pattern in name for name in layers(xl)), pattern


@pytest.mark.parametrize("xl", [False, True])
@pytest.mark.parametrize("method", ["lora", "locon"])
def test_block_ranks_of_a_run_come_back_from_its_command(xl: bool, method: str, tmp_path: Path) -> None:
    names = (
        ("middle_block_1", "output_blocks_2", "input_blocks_4")
        if xl
        else ("mid_block", "up_blocks_1", "down_blocks_0_")
    )
    blocks = {"block_ranks": {names[0]: 32, names[1]: 0, names[2]: 4}, "block_alphas": {names[2]: 4.0}}
    config = TrainConfig.parse({**RUN, "method": method, **blocks})
    made = command.command_for(config, "kohya", {"ss_base_model_version": "sdxl_base_v1-0"} if xl else {})
    assert not any("block" in line for line in made.no_equal)
    (tmp_path / "train.sh").write_text(made.command)
    found = TrainConfig.parse(import_kohya.run(tmp_path / "train.sh").config)
    here, there = spec_of(config), spec_of(found)
    for name, kernel in layers(xl).items():
        if method == "lora" and not re.search(r"transformer_blocks|proj_(in|out)$", name):
            continue
        if here.block_rank(name) == 0:
            assert there.block_rank(name) == 0, name
        else:
            assert there.for_module(name).rank_and_alpha(kernel) == here.for_module(name).rank_and_alpha(kernel), name


def test_ranks_within_a_block_and_of_lycoris_have_no_equal() -> None:
    within = TrainConfig.parse({**RUN, "block_ranks": {"attn2": 4}})
    assert [line for line in command.command_for(within, "kohya").no_equal if "block_ranks" in line] == [
        "block_ranks = {'attn2': 4}: its blocks have one rank each"
    ]
    lycoris = TrainConfig.parse({**RUN, "method": "lokr", "block_ranks": {"mid_block": 4}})
    assert any("LyCORIS has no ranks of blocks" in line for line in command.command_for(lycoris, "kohya").no_equal)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> families.BaseModel:
    return families.load(str(tiny.write_folder(tmp_path_factory.mktemp("base") / "sd1", "sd1")))


@pytest.mark.parametrize(("method", "groups"), [("loha", None), ("lokr", ["conv"]), ("dora", None)])
def test_lycoris_trains_the_layers_with_the_ranks_that_the_command_says(
    base: families.BaseModel, method: str, groups: list[str] | None
) -> None:
    from lycoris.kohya import create_network

    config = TrainConfig.parse({**RUN, "method": method, "layers": groups, "rank": 2, "alpha": 1.0})
    arguments, lost = kohya_network.write(config, xl=False)
    network = create_network(1.0, config.rank, config.alpha, None, base.text_encoders[0], base.unet, **arguments)
    theirs = {module.lora_name for module in network.unet_loras}
    ours = {written("sd1", name) for name in unet_slots(config, base)}
    # Its newer versions take the time embedding for one of another model's classes of the same name.
    more = {name.removeprefix("lora_unet_") for name in theirs - ours if "time_embedding" not in name}
    assert ours <= theirs and more == ({"conv_in", "conv_out"} if groups else set())
    assert lost == (["layers: preset=unet-convblock-only also trains conv_in and conv_out"] if groups else [])
    alphas = {float(module.alpha) for module in network.unet_loras if "lokr" not in method}
    assert alphas <= {1.0}


def read(tmp_path: Path, text: str) -> import_kohya.ImportResult:
    (tmp_path / "a.sh").write_text(f"python train_network.py --train_data_dir x {text}\n")
    return import_kohya.run(tmp_path / "a.sh")


LYCORIS = "--network_module lycoris.kohya --network_dim 8 --network_alpha 4 --network_args"


def test_what_a_lycoris_command_does_not_say(tmp_path: Path) -> None:
    wider = "network_args preset=full: there it also trains conv_in, conv_out and the time embedding"
    found = read(tmp_path, f"{LYCORIS} algo=lora conv_dim=2 train_norm=False")
    assert found.config["method"] == "locon" and found.no_equal == [wider]
    assert (found.config["conv_rank"], found.config["conv_alpha"]) == (2, 4.0)  # network_alpha
    found = read(tmp_path, f"{LYCORIS} algo=lokr preset=attn-mlp")
    assert found.config["lokr_factor"] == -1 and "layers" not in found.config and found.no_equal == []
    found = read(tmp_path, f"{LYCORIS} algo=lora preset=attn-mlp dora_wd=True")
    assert (found.config["method"], found.config["dora_axis"], found.no_equal) == ("dora", "output", [])
    found = read(tmp_path, f"{LYCORIS} algo=lora preset=attn-mlp dora_wd=True wd_on_output=False")
    assert (found.config["method"], found.config["dora_axis"], found.no_equal) == ("dora", "input", [])
    found = read(tmp_path, f"{LYCORIS} algo=loha preset=unet-transformer-only --network_dropout 0.1")
    assert found.config["text_encoder"] is False and "dropout" not in found.config
    assert found.no_equal == ["network_dropout = 0.1: LoHa has none here"]
    found = read(tmp_path, f"{LYCORIS} algo=loha preset=full-lin dora_wd=True")
    assert found.no_equal[0] == "network_args preset=full-lin: every layer of preset=full instead"
    assert "network_args dora_wd=True: loha has no magnitude here" in found.no_equal


def test_what_networks_lora_and_optimizers_do_not_say(tmp_path: Path) -> None:
    found = read(tmp_path, "--network_dim 8 --network_alpha 4 --network_args conv_dim=8")
    assert (found.config["method"], found.config["conv_alpha"]) == ("locon", 1.0)
    assert found.config["weight_decay"] == 0.01
    found = read(tmp_path, "--optimizer_type Prodigy")
    assert found.config["weight_decay"] == 0.0
    assert found.no_equal == []
    assert found.config["optimizer_args"] == {"safeguard_warmup": False, "use_bias_correction": False}
    found = read(tmp_path, "--optimizer_type Adafactor --optimizer_args relative_step=False scale_parameter=False")
    assert found.no_equal == [] and "optimizer_args" not in found.config
    found = read(tmp_path, "--optimizer_type Adafactor")
    assert found.config["optimizer_args"] == {"relative_step": True, "scale_parameter": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("block_dims=1,2", "block_dims has 2 numbers; .* 1 and 2 has 25 blocks, that of SDXL 23"),
        (f"block_dims={','.join('4' * 25)} block_alphas=1,2", "block_alphas has 2 numbers, but block_dims 25"),
        (f"block_dims={','.join('x' * 23)}", "is not a list of numbers"),
    ],
)
def test_wrong_lists_are_refused(arguments: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=message):
        read(tmp_path, f"--network_args {arguments}")
    left = read(tmp_path, "--network_args block_alphas=1,2")  # which Kohya's trainer passes over as well
    assert left.no_equal == ["network_args block_alphas=1,2"]


@pytest.mark.parametrize("kind", ["Standard", "Kohya LoCon", "LyCORIS/LoCon"])
def test_fields_of_other_kinds_in_the_guis_file_mean_nothing(kind: str, tmp_path: Path) -> None:
    dims = ",".join(str(n) for n in itertools.chain(range(1, 24), (7, 7)))
    values = {
        "LoRA_type": kind, "train_data_dir": "x", "conv_dim": 3, "conv_alpha": 2, "dora_wd": False, "factor": 5,
        "network_dim": 8, "network_alpha": 8, "block_dims": dims, "LyCORIS_preset": "attn-mlp", "loraplus_lr_ratio": 4,
    }  # fmt: skip
    (tmp_path / "gui.json").write_text(json.dumps(values))
    found = import_kohya.run(tmp_path / "gui.json").config
    assert found["method"] == ("locon" if kind == "Kohya LoCon" else "lora")
    assert ("block_ranks" in found) is not kind.startswith("LyCORIS")
    assert found.get("conv_rank") == (3 if kind == "Kohya LoCon" else None) and "lokr_factor" not in found
    assert found["lora_plus_ratio"] == 4.0


def test_numbers_of_zero_in_networks_lora(tmp_path: Path) -> None:
    """There conv_dim 0 trains no convolution, and an alpha of 0 is the rank; LyCORIS takes the others' numbers."""
    found = read(tmp_path, "--network_dim 8 --network_alpha 4 --network_args conv_dim=0 conv_alpha=2").config
    assert found["method"] == "lora" and "conv_rank" not in found
    found = read(tmp_path, "--network_dim 8 --network_alpha 4 --network_args conv_dim=6 conv_alpha=0").config
    assert (found["conv_rank"], found["conv_alpha"]) == (6, 6.0)
    found = read(tmp_path, f"--network_alpha 2 {LYCORIS} algo=lora conv_dim=0 conv_alpha=0").config
    assert found["method"] == "locon" and "conv_rank" not in found
    dims, alphas = ",".join(["4"] * 25), ",".join(["0"] * 25)
    found = read(tmp_path, f"--network_dim 8 --network_args block_dims={dims} block_alphas={alphas}").config
    assert set(found["block_alphas"].values()) == {4.0}


def test_lora_plus_has_one_ratio_here(tmp_path: Path) -> None:
    unet = "--network_args loraplus_unet_lr_ratio=4"
    assert read(tmp_path, f"--network_train_unet_only {unet}").config["lora_plus_ratio"] == 4.0
    assert read(tmp_path, f"--network_train_unet_only {unet}").no_equal == []
    found = read(tmp_path, unet)
    assert found.config["lora_plus_ratio"] == 4.0 and found.no_equal == [
        "network_args loraplus_text_encoder_lr_ratio=1: all up matrices learn 4 times faster here"
    ]
    assert read(tmp_path, unet + " loraplus_text_encoder_lr_ratio=4").no_equal == []


@pytest.mark.parametrize("argument", ["conv_dim=x", "conv_dim=1.5", "conv_alpha=nan", "loraplus_lr_ratio=inf"])
def test_arguments_that_are_no_numbers_are_named(argument: str, tmp_path: Path) -> None:
    name, _, text = argument.partition("=")
    arguments = argument if name != "conv_alpha" else f"conv_dim=4 {argument}"
    with pytest.raises(MaquetteError, match=rf"network_args {name} = {text} is not a (whole )?number"):
        read(tmp_path, f"--network_args {arguments}")
