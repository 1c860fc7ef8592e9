"""Full-size names and shapes on the meta device: LoRA keys as sd-scripts writes them, single-file keys as Stability's
files have.
"""

import hashlib
import json

import pytest
import torch

from maquette import families
from maquette.adapters.kohya_names import kohya_module_name
from maquette.errors import MaquetteError
from maquette.families.configs import text_config, unet_config, vae_config
from maquette.families.detect import identify, unet_family
from maquette.families.full_size import networks
from maquette.families.modules import build_unet
from maquette.formats import keys, ldm

# sha256 over the sorted keys and shapes of files that sd-scripts wrote (rank 8, text encoders included), and module
# counts.
SD_SCRIPTS = {
    "sd1": ("f3453626d1d8aa8f6dcc7b3d34a1eea22f5f4d40e808f3f513a467965dfba7b3", 264),
    "sdxl": ("bf86931a7a67ae3985f7132a0846f670221b1f1814de00f53ba63300dcb83e4f", 1014),
}


def digest(names: dict[str, tuple[int, ...]]) -> str:
    return hashlib.sha256(json.dumps(sorted((key, list(shape)) for key, shape in names.items())).encode()).hexdigest()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_lora_keys_and_shapes_are_those_of_sd_scripts(family: str) -> None:
    names = families.kohya_names(family)
    expected, modules = SD_SCRIPTS[family]
    assert len(names) == 3 * modules
    assert digest(names) == expected


@pytest.mark.parametrize(
    "family, plain, with_conv",
    # SD1: 16 transformers x 12, 12 text layers x 6; + 22 resnets x 3 and 14 shortcuts, 3 + 3 samplers
    [
        ("sd1", 192 + 72, 192 + 72 + 22 * 3 + 14 + 6),
        ("sd2", 192 + 138, 192 + 138 + 22 * 3 + 14 + 6),
        ("sdxl", 1014, 1052),
    ],
)
def test_counts_of_adaptable_layers(family: str, plain: int, with_conv: int) -> None:
    small, large = families.kohya_names(family), families.kohya_names(family, conv=True)
    assert (len(small) / 3, len(large) / 3) == (plain, with_conv)
    assert small.items() <= large.items()


ADAPTED = {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}  # sd-scripts' classes, with conv_dim


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_names_with_convolutions_are_all_layers_of_the_classes_that_sd_scripts_adapts(family: str) -> None:
    """An oracle of another kind: module classes, not patterns over names."""
    expected = {}
    for path, block in networks(family)["unet"].named_modules():
        if type(block).__name__ in ADAPTED:
            for inner, layer in block.named_modules():
                if type(layer).__name__ in ("Linear", "Conv2d"):
                    name = kohya_module_name(family, "unet", f"{path}.{inner}")
                    kernel = tuple(layer.weight.shape[2:])
                    expected[f"{name}.lora_down.weight"] = (8, layer.weight.shape[1], *kernel)
                    expected[f"{name}.lora_up.weight"] = (layer.weight.shape[0], 8, *(1 for _ in kernel))
                    expected[f"{name}.alpha"] = ()
    found = families.kohya_names(family, conv=True)
    assert {key: shape for key, shape in found.items() if key.startswith("lora_unet_")} == expected


@pytest.mark.parametrize(
    "family, key, shape",
    [
        ("sd1", "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", (8, 320, 1, 1)),
        ("sd1", "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", (8, 320, 3, 3)),
        ("sd1", "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight", (320, 8, 1, 1)),
        ("sd1", "lora_te_text_model_encoder_layers_11_mlp_fc2.lora_down.weight", (8, 3072)),
        ("sd2", "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", (8, 320)),
        ("sd2", "lora_te_text_model_encoder_layers_22_mlp_fc2.lora_up.weight", (1024, 8)),
        ("sdxl", "lora_te2_text_model_encoder_layers_31_self_attn_out_proj.lora_up.weight", (1280, 8)),
        ("sdxl", "lora_unet_input_blocks_3_0_op.lora_down.weight", (8, 320, 3, 3)),
        ("sdxl", "lora_unet_output_blocks_2_2_conv.lora_down.weight", (8, 1280, 3, 3)),
        ("sdxl", "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k.lora_down.weight", (8, 2048)),
    ],
)
def test_single_keys(family: str, key: str, shape: tuple[int, ...]) -> None:
    assert families.kohya_names(family, conv=True)[key] == shape


def test_rank_is_the_inner_size() -> None:
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"
    assert families.kohya_names("sd1", rank=3)[key] == (1280, 3, 1, 1)


def test_unknown_family_is_named() -> None:
    with pytest.raises(MaquetteError, match="no family 'sd3'; choose from sd1, sd2, sdxl and pocket"):
        families.kohya_names("sd3")


def single_file(family: str) -> dict[str, torch.Tensor]:
    """Names and meta tensors of a full-size single file, put together from the full-size networks."""
    parts = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
    tensors = {
        parts.get(part, part): {name.removeprefix("text_model."): t for name, t in network.state_dict().items()}
        for part, network in networks(family).items()
    }
    return ldm.join(ldm.SingleFile(tensors, ldm.standard_prefixes(family, tensors)))


@pytest.mark.parametrize(
    "family, prefix, count",
    [
        ("sd1", ldm.UNET, 686),
        ("sd1", ldm.VAE, 248),
        ("sd1", ldm.CLIP, 196),
        ("sd2", ldm.UNET, 686),
        ("sd2", ldm.OPEN_CLIP, 4 + 23 * 12),
        ("sdxl", ldm.UNET, 1680),
        ("sdxl", ldm.VAE, 248),
        ("sdxl", ldm.XL_CLIP, 196),
        ("sdxl", ldm.XL_OPEN_CLIP, 5 + 32 * 12),
    ],
)
def test_numbers_of_tensors_in_single_files(family: str, prefix: str, count: int) -> None:
    assert sum(name.startswith(prefix) for name in single_file(family)) == count


@pytest.mark.parametrize(
    "family, name, shape",
    [
        ("sd1", "model.diffusion_model.output_blocks.8.2.conv.weight", (640, 640, 3, 3)),
        ("sd1", "first_stage_model.decoder.up.3.upsample.conv.weight", (512, 512, 3, 3)),
        ("sd1", "first_stage_model.decoder.up.1.block.0.nin_shortcut.weight", (256, 512, 1, 1)),
        ("sd1", "first_stage_model.encoder.mid.attn_1.proj_out.weight", (512, 512, 1, 1)),
        ("sd1", "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (49408, 768)),
        ("sd2", "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight", (3072, 1024)),
        ("sd2", "model.diffusion_model.input_blocks.1.1.proj_in.weight", (320, 320)),
        ("sdxl", "conditioner.embedders.1.model.text_projection", (1280, 1280)),
        ("sdxl", "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias", (3840,)),
        ("sdxl", "model.diffusion_model.label_emb.0.0.weight", (1280, 2816)),
    ],
)
def test_names_and_shapes_that_every_program_expects(family: str, name: str, shape: tuple[int, ...]) -> None:
    assert tuple(single_file(family)[name].shape) == shape


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_full_size_files_are_recognised_and_taken_apart_again(family: str) -> None:
    tensors = single_file(family)
    identity = identify({name: tuple(t.shape) for name, t in tensors.items()})
    assert (identity.kind, identity.family, identity.variant) == ("model", family, "base")
    parts = ldm.split(tensors, dict(identity.prefixes)).parts
    for part, network in networks(family).items():
        expected = {name.removeprefix("text_model."): tuple(t.shape) for name, t in network.state_dict().items()}
        found = parts[{"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}.get(part, part)]
        assert {name: tuple(t.shape) for name, t in found.items()} == expected


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_configurations_read_off_the_shapes_equal_the_originals(family: str) -> None:
    for part, network in networks(family).items():
        shapes = {name.removeprefix("text_model."): tuple(t.shape) for name, t in network.state_dict().items()}
        if part == "unet":
            derived = unet_config(shapes, family)
        else:
            derived = vae_config(shapes, family) if part == "vae" else text_config(shapes, family, part == "te2")
        told_elsewhere = {
            "_class_name",
            "architectures",
            "scaling_factor",
            "force_upcast",
            "pad_token_id",
            "hidden_act",
            "bos_token_id",
            "model_type",
        }
        told_elsewhere |= {"sample_size"} | ({"projection_dim"} if part != "te2" else set())
        actual = dict(network.config)
        for key in derived.keys() - told_elsewhere:
            assert as_list(actual[key], derived[key]) == derived[key], (part, key)


def as_list(actual: object, like: object) -> object:
    if isinstance(actual, tuple):
        return list(actual)
    return [actual] * len(like) if isinstance(like, list) and isinstance(actual, int) else actual


REFINER: dict[str, object] = {
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2560,
}


def test_the_refiner_at_full_size() -> None:
    """Names and shapes as diffusers has them, in Stability's file, recognised, and the configuration read off again."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as Oracle

    ours = build_unet(REFINER)
    with torch.device("meta"):
        oracle = Oracle.from_config(dict(ours.config))
    tensors = ours.state_dict()
    assert [(n, t.shape) for n, t in tensors.items()] == [(n, t.shape) for n, t in oracle.state_dict().items()]
    assert 2.2e9 < sum(t.numel() for t in tensors.values()) < 2.3e9  # 4.5 GB in half precision
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    assert unet_family(shapes) == "refiner"
    derived = unet_config(shapes, "refiner")
    depth = {"transformer_layers_per_block": 4}  # of the first level, which has no transformer, any
    assert {key: (derived | depth)[key] for key in REFINER} == REFINER
    assert {name: tuple(t.shape) for name, t in build_unet(derived).state_dict().items()} == shapes
    layout = ldm.unet_layout(tensors)
    single = {ldm.UNET + keys.unet_to_ldm(name, layout): t for name, t in tensors.items()}
    assert single[ldm.UNET + "label_emb.0.0.weight"].shape == (1536, 2560)
    assert single[ldm.UNET + "input_blocks.4.1.transformer_blocks.3.attn2.to_k.weight"].shape == (768, 1280)
    assert single[ldm.UNET + "middle_block.1.transformer_blocks.3.ff.net.0.proj.weight"].shape == (12288, 1536)
    identity = identify({name: tuple(t.shape) for name, t in single.items()})
    assert (identity.kind, identity.family) == ("unet", "refiner")
    parts = ldm.split(single, dict(identity.prefixes)).parts
    assert {name: tuple(t.shape) for name, t in parts["unet"].items()} == shapes
