"""Key names by rule, against facts written down from files of other programs."""

import hashlib

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from maquette.adapters import kohya_names, module_names
from maquette.families.named_layers import layer_names
from maquette.formats import keys

SDXL_CONFIG = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}


def unet(**config: object) -> torch.nn.Module:
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


@pytest.mark.parametrize(
    "config, layout, count",
    [({"cross_attention_dim": 768}, keys.SD_LAYOUT, 686), (SDXL_CONFIG, keys.SDXL_LAYOUT, 1680)],
    ids=["sd1", "sdxl"],
)
def test_unet_keys_translate_to_ldm_and_back(config: dict, layout: keys.UNetLayout, count: int) -> None:
    ours = list(unet(**config).state_dict())
    ldm = [keys.unet_to_ldm(key, layout) for key in ours]
    assert len(set(ldm)) == count
    assert [keys.unet_from_ldm(key) for key in ldm] == ours


@pytest.mark.parametrize(
    "ours, ldm",
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
        ("down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"),
        ("mid_block.resnets.1.norm2.weight", "middle_block.2.out_layers.0.weight"),
        ("mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("up_blocks.3.attentions.2.proj_out.bias", "output_blocks.11.1.proj_out.bias"),
        ("time_embedding.linear_2.bias", "time_embed.2.bias"),
        ("conv_norm_out.weight", "out.0.weight"),
    ],
)
def test_sd1_names_that_every_program_knows(ours: str, ldm: str) -> None:
    assert keys.unet_to_ldm(ours) == ldm


def test_sdxl_upsamplers_stand_behind_attention() -> None:
    assert keys.unet_to_ldm("up_blocks.0.upsamplers.0.conv.weight", keys.SDXL_LAYOUT) == "output_blocks.2.2.conv.weight"


@pytest.mark.parametrize(
    "family, part, path, expected",
    [
        ("sd1", "te", "encoder.layers.0.mlp.fc1", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
        ("sd1", "te", "text_model.encoder.layers.0.mlp.fc1", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
        (
            "sdxl",
            "te2",
            "text_model.encoder.layers.31.self_attn.q_proj",
            "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
        ),
        ("pocket", "unet", "mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("sdxl", "unet", "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("sdxl", "unet", "up_blocks.0.resnets.0.time_emb_proj", "lora_unet_output_blocks_0_0_emb_layers_1"),
    ],
)
def test_kohya_names(family: str, part: str, path: str, expected: str) -> None:
    assert kohya_names.kohya_module_name(family, part, path) == expected


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_a_module_is_its_network_and_path_whatever_files_call_it(family: str) -> None:
    """There and back for every layer with a weight at full size; no two are written alike."""
    names = layer_names(family)
    written = {kohya_names.written(family, name): name for name in names}
    assert len(written) == len(names) > 100
    assert all(kohya_names.read(kohya) == name for kohya, name in written.items())
    networks = {network for network, _ in map(kohya_names.layer, names)}
    assert networks == {"unet", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])}


def test_kohyas_names_of_one_layer_are_one_module() -> None:
    """SDXL's UNet under LDM's names and under diffusers', the first text encoder with and without its number."""
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    for kohya in ("input_blocks_4_1_transformer_blocks_0_attn2_to_k", path.replace(".", "_")):
        assert kohya_names.read(f"lora_unet_{kohya}") == f"unet.{path}"
    for part in ("te", "te1"):
        name = kohya_names.read(f"lora_{part}_text_model_encoder_layers_0_mlp_fc1")
        assert name == "text_encoder.text_model.encoder.layers.0.mlp.fc1" and module_names.of_text_encoder(name)
    assert kohya_names.written("sdxl", name) == "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    assert kohya_names.written("sd1", "lora_unet_spam") == "lora_unet_spam"  # of no Stable Diffusion
    with pytest.raises(ValueError, match="lora_unet_spam is no layer"):
        kohya_names.layer("lora_unet_spam")


def test_unknown_paths_are_refused() -> None:
    for path in ("down_blocks.0.motion_modules.0.x", "down_blocks.0.resnets.0.spam", "nonsense"):
        with pytest.raises(ValueError):
            keys.unet_to_ldm(path)
    with pytest.raises(ValueError):
        keys.unet_from_ldm("temporal.0.weight")


def digest(names: object) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()  # type: ignore[type-var]
