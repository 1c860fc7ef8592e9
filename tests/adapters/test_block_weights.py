"""Block weights: the field's lists, presets and block names."""

from __future__ import annotations

from pathlib import Path

import pytest

from maquette.adapters import block_weights
from maquette.errors import MaquetteError
from maquette.families.named_layers import layer_names
from maquette.families.trainable import kohya_names

# What sd-webui-lora-block-weight's first presets are for Stable Diffusion 1, as its lists of 17 values.
PRESETS = {
    "NONE": "00000000000000000",
    "INS": "11110000000000000",
    "IND": "10001110000000000",
    "INALL": "11111110000000000",
    "MIDD": "10001111111100000",
    "OUTD": "10000000111100000",
    "OUTS": "10000000000011111",
    "OUTALL": "10000000111111111",
}


@pytest.mark.parametrize(("name", "digits"), PRESETS.items())
def test_presets_are_the_extensions(name: str, digits: str) -> None:
    found = block_weights.parse(name, "sd1")
    written = block_weights.parse(",".join(digits), "sd1")
    assert [found.of_block(block) for block in block_weights.blocks("sd1")] == [
        written.of_block(block) for block in block_weights.blocks("sd1")
    ]


@pytest.mark.parametrize(("family", "short", "full"), [("sd1", 17, 26), ("sd2", 17, 26), ("sdxl", 12, 20)])
def test_lists_go_block_by_block(family: str, short: int, full: int) -> None:
    assert len(block_weights.blocks(family)) == full and len(block_weights.attention_blocks(family)) == short
    for count, names in ((short, block_weights.attention_blocks(family)), (full, block_weights.blocks(family))):
        values = [i / 10 for i in range(count)]
        weights = block_weights.parse(",".join(map(str, values)), family)
        assert [weights.of_block(name) for name in names] == values
        assert all(weights.of_block(block) == 0 for block in block_weights.blocks(family) if block not in names)


def test_a_plain_lora_touches_exactly_the_blocks_of_the_short_list() -> None:
    for family in ("sd1", "sd2", "sdxl"):
        modules = {
            key.partition(".")[0] for key in kohya_names(family) if "_resnets_" not in key and "emb_layers" not in key
        }
        modules = {name for name in modules if "skip_connection" not in name}
        found = {block_weights.block_of(name, family) for name in modules}
        assert found == set(block_weights.attention_blocks(family))


@pytest.mark.parametrize(
    ("name", "family", "block"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "sd1", "IN01"),
        ("lora_unet_down_blocks_2_attentions_1_proj_in", "sd1", "IN08"),
        ("lora_unet_down_blocks_3_resnets_1_conv1", "sd1", "IN11"),
        ("lora_unet_conv_in", "sd1", "IN00"),
        ("lora_unet_mid_block_attentions_0_proj_in", "sd1", "M00"),
        ("lora_unet_up_blocks_1_attentions_0_proj_in", "sd1", "OUT03"),
        ("lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_2", "sd1", "OUT11"),
        ("lora_unet_conv_out", "sd1", "OUT11"),
        ("lora_unet_time_embedding_linear_1", "sd1", "BASE"),
        ("lora_te_text_model_encoder_layers_11_mlp_fc1", "sd1", "BASE"),
        ("lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_k", "sdxl", "IN08"),
        ("lora_unet_output_blocks_5_1_proj_out", "sdxl", "OUT05"),
        ("lora_unet_output_blocks_8_0_in_layers_2", "sdxl", "OUT08"),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc1", "sdxl", "BASE"),
        ("lora_unet_down_blocks_2_attentions_0_proj_in", "pocket", "IN05"),
        ("lora_unet_up_blocks_2_resnets_1_conv1", "pocket", "OUT05"),
    ],
)
def test_blocks_of_layers(name: str, family: str, block: str) -> None:
    assert block_weights.block_of(name, family) == block


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_every_layer_of_a_family_has_a_block_of_it(family: str) -> None:
    found = {block_weights.block_of(name, family) for name in layer_names(family)}
    assert found == set(block_weights.blocks(family))


def test_curves_of_blends() -> None:
    def values(name: str) -> list[float]:
        weights = block_weights.parse(name, "sd1")
        return [weights.of_block(block) for block in block_weights.blocks("sd1")]

    assert values("GRAD_V")[:4] == pytest.approx([0, 1, 11 / 12, 10 / 12]) and values("GRAD_V")[13] == 0
    assert values("GRAD_A")[:3] == pytest.approx([0, 0, 1 / 12]) and values("GRAD_A")[13] == 1
    assert values("SMOOTHSTEP")[:4] == pytest.approx([0, 0, 0.00506365740740741, 0.0196759259259259])
    assert values("COSINE")[:4] == pytest.approx([0, 1, 0.995722430686905, 0.982962913144534])
    assert values("WRAP08") == [0.0] + [1.0] * 4 + [0.0] * 17 + [1.0] * 4
    assert values("ALL0.5") == [0.5] * 26


@pytest.mark.parametrize(
    ("text", "family", "told"),
    [
        ("1,1,1", "sd1", "are 3 values; this kind of model takes 17 or 26"),
        (",".join(["1"] * 17), "sdxl", "are 17 values; this kind of model takes 12 or 20"),
        ("OUTAL", "sd1", "no preset .*'OUTAL'; did you mean OUTALL"),
        (",".join(["1"] * 16 + ["nan"]), "sd1", "no preset of block weights"),
        (",".join(["1"] * 16 + ["1e9"]), "sd1", "not between -100 and 100"),
        (",".join(["1"] * 16 + [""]), "sd1", "something that is no number"),
        (",".join(["1"] * 16 + ["1000"]), "sd1", "not between -100 and 100"),
    ],
)
def test_refusals(text: str, family: str, told: str) -> None:
    with pytest.raises(MaquetteError, match=told):
        block_weights.parse(text, family)


def test_a_file_of_presets(tmp_path: Path) -> None:
    path = tmp_path / "lbwpresets.txt"
    path.write_text("# mine\nFACE: 0,0,0,0,0,0,0,0,1,1,1,0,0,0,0,0,0\nALL:" + ",".join(["0.5"] * 17) + "  # softer\n\n")
    presets = block_weights.read_presets(path)
    face = block_weights.parse("FACE", "sd1", presets)
    assert [block for block in block_weights.blocks("sd1") if face.of_block(block)] == ["OUT03", "OUT04", "OUT05"]
    assert block_weights.parse("ALL", "sd1", presets).of_block("M00") == 0.5  # a person's own go first
    path.write_text("FACE=1\n")
    with pytest.raises(MaquetteError, match=r"lbwpresets\.txt, line 1: write a preset as NAME:1,0"):
        block_weights.read_presets(path)
