"""What other architectures call their layers, so that their files are refused by their name.

Facts: the module names of each program's published code; where two architectures share the names, the width of a layer
or the number of blocks tells them apart, or the metadata that trainers write (`modelspec.architecture`,
`ss_base_model_version`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_PREFIX = re.compile(
    r"^(base_model\.model\.|(model\.)?diffusion_model\.|lora_transformer_|lora_unet[_.]|lycoris_|transformer\.|unet\.)+"
)
_HEAD = r"(double|single)_blocks_"
# Name of an architecture -> expression over names with underscores; the first that any name fits.
_RULES: tuple[tuple[str, str], ...] = (
    ("Stable Cascade", r"^lora_prior_|^prior_|_kv_mapper_|_attention_attn_|^clip_txt_mapper|^effnet_"),
    ("AnimateDiff", r"motion_modules_"),
    ("Stable Video Diffusion", r"temporal_transformer_blocks_|time_pos_embed|_time_stack_"),
    ("AuraFlow", r"^joint_transformer_blocks_|^(double|single)_layers_\d+_(attn|mlp)"),
    ("Stable Diffusion 3", r"^joint_blocks_|_context_block_"),
    ("HiDream", r"^(double|single)_stream_blocks_"),
    ("Flux 2", r"_to_qkv_mlp_proj|^(double|single)_stream_modulation"),
    ("Chroma", r"^distilled_guidance_layer"),
    ("HunyuanVideo", rf"_token_refiner_|^{_HEAD}\d+_(img|txt)_mlp_fc[12]"),
    ("Qwen-Image", r"^transformer_blocks_\d+_(img|txt)_(mlp|mod)"),
    ("Flux", rf"^{_HEAD}\d+_|^single_transformer_blocks_"),
    ("Kandinsky 2", r"_attentions_\d+_(add_[kqv]_proj|to_[qkv]$|to_out)"),
    ("Wan", r"^blocks_\d+_((self|cross)_attn_([qkvo]|[kv]_img)$|ffn_[02]|ffn_net_|attn[12]_(to_|add_))"),
    ("Anima", r"^llm_adapter|^blocks_\d+_((self|cross)_attn_(q|k|v|output)_proj|adaln_modulation)"),
    ("Hunyuan-DiT", r"^blocks_\d+_(attn1_(Wqkv|out_proj)|attn2_(q|kv|out)_proj|skip_linear)"),
    ("PixArt", r"^blocks_\d+_cross_attn_(q|kv)_linear"),
    ("a language model", r"^layers_\d+_attention_w[qkvo]|^tok_embeddings"),
    ("Lumina 2", r"^layers_\d+_feed_forward_linear_"),
    ("Z-Image", r"^layers_\d+_attention_to_"),
    ("Lumina 2 or Z-Image", r"^(layers_\d+|(noise|context|cap)_refiner_\d+)_(attention|attn|feed_forward|adaLN)"),
    ("Flux or Stable Diffusion 3", r"^transformer_blocks_\d+_(attn|ff|ff_context|norm1)(_|$)"),
    ("PixArt, LTX-Video or CogVideoX", r"^transformer_blocks_\d+_(attn[12]|ff)_"),
    ("a language model", r"^(model_)?layers_\d+_(self_attn|mlp)_|^encoder_block_\d+_layer_|embed_tokens"),
    ("Stable Diffusion 3 or Flux", r"^lora_te3_|^text_encoders_t5|^text_encoder_3_"),
)
# The second look, for names that several share: width of a block's inputs -> architecture.
_WIDTHS: dict[str, dict[int, str]] = {
    "Lumina 2 or Z-Image": {2304: "Lumina 2", 3840: "Z-Image"},
    "Flux or Stable Diffusion 3": {1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3", 3072: "Flux"},
    "PixArt, LTX-Video or CogVideoX": {1152: "PixArt", 2048: "LTX-Video", 4096: "LTX-Video", 2240: "Sana",
                                       1920: "CogVideoX", 3072: "CogVideoX"},
    "Flux": {6144: "Flux 2"},
}  # fmt: skip
# A block of this number or a later one: (architecture by name, first number) -> architecture.
_MORE_BLOCKS = {
    "Flux": (r"^double_blocks_(\d{1,3})_", 19, "HunyuanVideo"),
    "Flux or Stable Diffusion 3": (r"^transformer_blocks_(\d{1,3})_", 38, "Qwen-Image"),
}
# What trainers write, in lower case and without what stands between words; the longest that fits counts.
_TOLD = {
    "flux2": "Flux 2", "flux": "Flux", "sd3": "Stable Diffusion 3", "stablediffusionv3": "Stable Diffusion 3",
    "stablediffusion3": "Stable Diffusion 3", "wan2": "Wan", "hunyuanvideo": "HunyuanVideo",
    "framepack": "HunyuanVideo",
    "hunyuandit": "Hunyuan-DiT", "hydit": "Hunyuan-DiT", "hunyuanimage": "HunyuanImage", "qwenimage": "Qwen-Image",
    "zimage": "Z-Image", "lumina": "Lumina 2", "chroma": "Chroma", "auraflow": "AuraFlow", "pixart": "PixArt",
    "stablecascade": "Stable Cascade", "wuerstchen": "Stable Cascade", "hidream": "HiDream", "ltxvideo": "LTX-Video",
    "ltxv": "LTX-Video", "anima": "Anima", "cosmos": "Cosmos", "cogvideo": "CogVideoX", "sana": "Sana",
    "kandinsky": "Kandinsky", "omnigen": "OmniGen", "animatediff": "AnimateDiff",
    "stablevideo": "Stable Video Diffusion", "animagine": "",
}  # fmt: skip


def named(names: Iterable[str], metadata: Mapping[str, str], widths: Iterable[int] = ()) -> str | None:
    """The architecture whose layers these are ("Flux", "Wan" …); None when no name is one that is known here.

    names: modules or parameters, with dots or underscores. widths: numbers of inputs of the layers. Of names that
    belong to Stable Diffusion 1, 2 and XL the caller has made sure beforehand: the metadata is not believed against
    them.
    """
    names = list(names)
    bare = [re.sub(r"\W", "_", _PREFIX.sub("", name)) for name in names]
    by_metadata = _by_metadata(metadata)
    if by_metadata is not None:
        return by_metadata
    found = next((name for name, rule in _RULES if any(re.search(rule, one) for one in bare)), None)
    if found is None:
        return None
    if found == "Flux" and any(re.search(r"(double|single)_blocks\.\d+\.(img|txt)_attn_", name) for name in names):
        return "HunyuanVideo"  # which writes img_attn_qkv where Flux has img_attn.qkv
    if found in _MORE_BLOCKS:
        rule, first, other = _MORE_BLOCKS[found]
        if any((match := re.match(rule, one)) and int(match[1]) >= first for one in bare):
            return other
    table = _WIDTHS.get(found, {})
    return next((table[width] for width in widths if width in table), found)


def _by_metadata(metadata: Mapping[str, str]) -> str | None:
    for key in ("modelspec.architecture", "ss_base_model_version"):
        said = re.sub(r"[^a-z0-9]", "", metadata.get(key, "")[:200].lower())
        fitting = [mark for mark in _TOLD if mark in said]
        if fitting:
            return _TOLD[max(fitting, key=len)] or None
    return None
