"""ComfyUI's nodes as tables: what each takes and gives, and its names of samplers and schedules.

Read off ComfyUI's `nodes.py`, `comfy_extras/` and `comfy/samplers.py` (2025): signatures alone.
"""

from __future__ import annotations

from typing import NamedTuple


class Node(NamedTuple):
    """takes: inputs by name, of a link's type (in capitals) or a widget's ("text", "number", "choice"). gives: types of
    the outputs, slot by slot.
    """

    takes: dict[str, str]
    gives: tuple[str, ...]


def _node(takes: str, gives: str) -> Node:
    """From `name:TYPE name:TYPE` and `TYPE TYPE`."""
    pairs = (part.split(":") for part in takes.split())
    return Node({name: kind for name, kind in pairs}, tuple(gives.split()))


_BOTH = "positive:CONDITIONING negative:CONDITIONING"
_HOW = "steps:number cfg:number sampler_name:choice scheduler:choice"

NODES = {
    "CheckpointLoaderSimple": _node("ckpt_name:choice", "MODEL CLIP VAE"),
    "DiffusersLoader": _node("model_path:choice", "MODEL CLIP VAE"),
    "VAELoader": _node("vae_name:choice", "VAE"),
    "LoraLoader": _node(
        "model:MODEL clip:CLIP lora_name:choice strength_model:number strength_clip:number", "MODEL CLIP"
    ),
    "CLIPSetLastLayer": _node("clip:CLIP stop_at_clip_layer:number", "CLIP"),
    "CLIPTextEncode": _node("clip:CLIP text:text", "CONDITIONING"),
    "CLIPTextEncodeSDXLRefiner": _node("clip:CLIP text:text ascore:number width:number height:number", "CONDITIONING"),
    "RescaleCFG": _node("model:MODEL multiplier:number", "MODEL"),
    "ModelSamplingDiscrete": _node("model:MODEL sampling:choice zsnr:choice", "MODEL"),
    "EmptyLatentImage": _node("width:number height:number batch_size:number", "LATENT"),
    "LoadImage": _node("image:choice", "IMAGE MASK"),
    "LoadImageMask": _node("image:choice channel:choice", "MASK"),
    "InvertMask": _node("mask:MASK", "MASK"),
    "ImageScale": _node("image:IMAGE upscale_method:choice width:number height:number crop:choice", "IMAGE"),
    "ImagePadForOutpaint": _node(
        "image:IMAGE left:number top:number right:number bottom:number feathering:number", "IMAGE MASK"
    ),
    "ImageCompositeMasked": _node(
        "destination:IMAGE source:IMAGE mask:MASK x:number y:number resize_source:choice", "IMAGE"
    ),
    "ImageInvert": _node("image:IMAGE", "IMAGE"),
    "Canny": _node("image:IMAGE low_threshold:number high_threshold:number", "IMAGE"),
    "UpscaleModelLoader": _node("model_name:choice", "UPSCALE_MODEL"),
    "ImageUpscaleWithModel": _node("upscale_model:UPSCALE_MODEL image:IMAGE", "IMAGE"),
    "VAEEncode": _node("pixels:IMAGE vae:VAE", "LATENT"),
    "VAEEncodeForInpaint": _node("pixels:IMAGE vae:VAE mask:MASK grow_mask_by:number", "LATENT"),
    "SetLatentNoiseMask": _node("samples:LATENT mask:MASK", "LATENT"),
    "InpaintModelConditioning": _node(
        f"{_BOTH} vae:VAE pixels:IMAGE mask:MASK noise_mask:choice", "CONDITIONING CONDITIONING LATENT"
    ),
    "ControlNetLoader": _node("control_net_name:choice", "CONTROL_NET"),
    "ControlNetApplyAdvanced": _node(
        f"{_BOTH} control_net:CONTROL_NET image:IMAGE strength:number start_percent:number end_percent:number vae:VAE",
        "CONDITIONING CONDITIONING",
    ),
    "LatentUpscale": _node("samples:LATENT upscale_method:choice width:number height:number crop:choice", "LATENT"),
    "KSampler": _node(f"model:MODEL seed:number {_HOW} {_BOTH} latent_image:LATENT denoise:number", "LATENT"),
    "KSamplerAdvanced": _node(
        f"model:MODEL add_noise:choice noise_seed:number {_HOW} {_BOTH} latent_image:LATENT "
        "start_at_step:number end_at_step:number return_with_leftover_noise:choice",
        "LATENT",
    ),
    "VAEDecode": _node("samples:LATENT vae:VAE", "IMAGE"),
    "VAEDecodeTiled": _node(
        "samples:LATENT vae:VAE tile_size:number overlap:number temporal_size:number temporal_overlap:number", "IMAGE"
    ),
    "SaveImage": _node("images:IMAGE filename_prefix:text", ""),
}

SAMPLERS = {
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "Heun": "heun",
    "LMS": "lms",
    "DPM2": "dpm_2",
    "DPM2 a": "dpm_2_ancestral",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "dpmpp_2m_sde_heun",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2S a": "dpmpp_2s_ancestral",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "UniPC": "uni_pc",
    "DDIM": "ddim",
    "LCM": "lcm",
}
"""A1111's name -> ComfyUI's. DDIM CFG++, PLMS and Restart have no equal there."""

NEARLY = {
    "DDIM": "steps through timesteps of its own: the picture is nearly the same",
    "UniPC": "steps through timesteps of its own: the picture is nearly the same",
    "DPM++ 3M SDE": "keeps the level before the last, which A1111 leaves out: the picture is a sibling",
}
"""Samplers of the same name that draw a little otherwise, seen by running both."""

SCHEDULES = {
    "Automatic": "normal",
    "Uniform": "normal",
    "Normal": "normal",
    "Karras": "karras",
    "Exponential": "exponential",
    "SGM Uniform": "sgm_uniform",
    "Simple": "simple",
    "DDIM": "ddim_uniform",
    "Beta": "beta",
    "KL Optimal": "kl_optimal",
}
"""A1111's name -> ComfyUI's. Polyexponential, Align Your Steps and Turbo are nodes of their own there."""

LATENT_WAYS = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest-exact",
    "Latent (nearest-exact)": "nearest-exact",
}
PIXEL_WAYS = {"Lanczos": "lanczos", "Nearest": "nearest-exact"}
