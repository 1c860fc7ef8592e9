"""The pictures of a ComfyUI workflow: what ControlNets see, what is begun from, masks."""

from __future__ import annotations

from pathlib import Path

from ..errors import MaquetteError
from .comfy_parts import Facts, Link, Model, Workflow
from .draw_settings import DrawSettings
from .pictures.outpainting import SIDES, read_sides
from .pictures.preprocessors import PREPROCESSORS

Kept = tuple[Link, Link]
"""A picture, and the mask of what is drawn anew in it."""


def controlled(
    made: Workflow, model: Model, positive: Link, negative: Link, settings: DrawSettings
) -> tuple[Link, Link]:
    """The prompts as every ControlNet steers them."""
    for unit in settings.controls:
        picture = unit.image or settings.init_image
        if picture is None:
            raise MaquetteError(f"The ControlNet {unit.model} has no picture: give it one with image=FILE.")
        image: Link = [made.add("LoadImage", image=Path(picture).name), 0]
        if unit.preprocessor == "canny":
            known = PREPROCESSORS["canny"]
            low, high = (usual if own is None else own for own, usual in ((unit.a, known.a), (unit.b, known.b)))
            inputs = {"low_threshold": min(0.99, low / 255), "high_threshold": min(0.99, high / 255)}
            image = [made.add("Canny", image=image, **inputs), 0]
            made.note("ComfyUI's Canny measures its thresholds otherwise: look at its edges and adjust them.")
        elif unit.preprocessor == "invert":
            image = [made.add("ImageInvert", image=image), 0]
        elif unit.preprocessor != "none":
            made.note(f"ComfyUI's own nodes have no preprocessor {unit.preprocessor}: give {unit.model} what it makes.")
        if unit.mode != "balanced":
            made.note(f"ControlNetApplyAdvanced has no control mode: {unit.model} is balanced there.")
        network = made.add("ControlNetLoader", control_net_name=Path(unit.model).name)
        applied = made.add(
            "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=[network, 0], image=image,
            strength=unit.weight, start_percent=unit.start, end_percent=unit.end, vae=model.vae,
        )  # fmt: skip
        positive, negative = [applied, 0], [applied, 1]
    return positive, negative


def begun(
    made: Workflow, model: Model, positive: Link, negative: Link, settings: DrawSettings, facts: Facts
) -> tuple[Link, Link, Link, Kept | None]:
    """The latents to begin from; the prompts, which an inpainting model is told the mask with; and what is kept."""
    width, height = facts.size
    if settings.init_image is None:
        empty = made.add("EmptyLatentImage", width=width, height=height, batch_size=1)
        return [empty, 0], positive, negative, None
    load = made.add("LoadImage", image=Path(settings.init_image).name)
    image: Link = [load, 0]
    mask: Link | None = None
    if settings.mask == "transparency":
        mask = [load, 1]
    elif settings.mask:
        mask = [made.add("LoadImageMask", image=Path(settings.mask).name, channel="red"), 0]
    if mask is not None and settings.mask_invert:
        mask = [made.add("InvertMask", mask=mask), 0]
    if sides := read_sides(settings.extend):
        if mask is not None:
            raise MaquetteError("ComfyUI's own nodes take a mask or extend the picture, not both at once.")
        room = {side: sides.get(side, 0) for side in SIDES}
        padded = made.add("ImagePadForOutpaint", image=image, **room, feathering=round(2 * settings.mask_blur))
        image, mask = [padded, 0], [padded, 1]
    else:
        crop = "disabled" if settings.resize_mode in ("just", "latent") else "center"
        scaled = {"upscale_method": "lanczos", "width": width, "height": height, "crop": crop}
        image = [made.add("ImageScale", image=image, **scaled), 0]
        if settings.resize_mode in ("fill", "latent"):
            made.note(f"ImageScale has no resize mode {settings.resize_mode}.")
    if mask is None:
        return [made.add("VAEEncode", pixels=image, vae=model.vae), 0], positive, negative, None
    kept = image, mask
    if settings.mask_blur:
        made.note("ComfyUI's own nodes do not blur a mask: its border is hard there.")
    if facts.channels == 9:
        inputs = {"positive": positive, "negative": negative, "vae": model.vae, "pixels": image, "mask": mask}
        node = made.add("InpaintModelConditioning", **inputs, noise_mask=True)
        return [node, 2], [node, 0], [node, 1], kept
    if settings.masked_content == "original":
        encoded = made.add("VAEEncode", pixels=image, vae=model.vae)
        return [made.add("SetLatentNoiseMask", samples=[encoded, 0], mask=mask), 0], positive, negative, kept
    if settings.masked_content != "latent nothing":
        made.note(f"VAEEncodeForInpaint fills what is masked with grey, not with {settings.masked_content!r}.")
    inputs = {"pixels": image, "vae": model.vae, "mask": mask}
    return [made.add("VAEEncodeForInpaint", **inputs, grow_mask_by=0), 0], positive, negative, kept
