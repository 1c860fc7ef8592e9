"""A drawing's settings as a ComfyUI workflow in its API format, which makes the like picture.

Files are named as ComfyUI's folders hold them, without their path. What ComfyUI has no equal for ends in an error where
the picture would be another one, and in a note where it would be nearly the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..prompts import parse_attention, parse_composable, parse_networks, parse_schedule, strip_comments
from .comfy_nodes import LATENT_WAYS, PIXEL_WAYS, SAMPLERS, SCHEDULES
from .draw_settings import DrawSettings
from .enlarging import LATENT, Enlargement
from .lora_folder import find_loras
from .lora_tags import tags_of
from .pictures.outpainting import SIDES, read_sides
from .pictures.preprocessors import PREPROCESSORS
from .samplers import image_steps, kind_of, schedule_of

Link = list[Any]
"""[number of a node, slot of its output]."""


@dataclass(frozen=True)
class Facts:
    """What a workflow needs to know besides the settings. channels: of the UNet's input; size: of the first drawing;
    embeddings: the names of textual inversions that the prompts call; vae: the file of one that is not the base's.
    """

    base: str
    family: str
    channels: int
    prediction: str
    cfg_scale: float
    size: tuple[int, int]
    embeddings: tuple[str, ...] = ()
    vae: str = ""


@dataclass
class Workflow:
    """nodes: number -> {"class_type", "inputs"}, as ComfyUI's API takes it. notes: what will differ, in sentences."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, **inputs: Any) -> str:
        """A node; links are [number, slot]. Returns its number."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return number

    def note(self, text: str) -> None:
        """A sentence, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class _Model:
    model: Link
    clip: Link
    vae: Link


def workflow(settings: DrawSettings, facts: Facts) -> Workflow:
    """The workflow of the first picture. Raises MaquetteError, saying what, for settings that ComfyUI cannot have."""
    _require_possible(settings, facts)
    made = Workflow()
    model = _opened(made, facts.base, settings.prompt, settings, facts)
    positive, negative = _prompts(made, model, settings.prompt, settings.negative_prompt, settings, facts)
    positive, negative = _controlled(made, model, positive, negative, settings)
    latent, positive, negative = _begun(made, model, positive, negative, settings, facts)
    latent = _drawn(made, model, positive, negative, latent, settings, facts, last=not settings.hires)
    if settings.hires:
        model, latent = _again(made, model, latent, settings, facts)
    inputs: dict[str, Any] = {"samples": latent, "vae": model.vae}
    if settings.tiled_vae:
        image = made.add("VAEDecodeTiled", **inputs, tile_size=512, overlap=64, temporal_size=64, temporal_overlap=8)
    else:
        image = made.add("VAEDecode", **inputs)
    made.add("SaveImage", images=[image, 0], filename_prefix="maquette")
    _notes(made, settings)
    return made


def _require_possible(settings: DrawSettings, facts: Facts) -> None:
    if facts.family == "pocket":
        raise MaquetteError("ComfyUI cannot open pocket, whose latents are a quarter as large as its pictures.")
    for text in (settings.prompt, settings.negative_prompt, settings.hires_prompt or ""):
        plain = _said(text, settings)
        if len(parse_composable(plain)) > 1:
            raise MaquetteError("ComfyUI has no AND between prompts; draw them without --comfy, or join them.")
        if len(parse_schedule(plain, 1000)) > 1:
            raise MaquetteError("ComfyUI's nodes have no [from:to:when] in prompts; write one prompt without it.")
    if settings.only_masked:
        raise MaquetteError("ComfyUI's own nodes cannot draw the masked part alone; leave out only_masked.")
    if settings.variation_strength or settings.seed_resize_from:
        raise MaquetteError("ComfyUI's own nodes have no variation seed and no seed of another size; leave them out.")
    for sampler in (settings.sampler, settings.hires_sampler or settings.sampler):
        _names(sampler)


def _names(sampler: str) -> tuple[str, str]:
    """ComfyUI's names of sampler and schedule. Raises MaquetteError where there is none."""
    name, schedule = schedule_of(sampler)
    if name not in SAMPLERS:
        raise MaquetteError(f"ComfyUI has no sampler {name}; these it has: {', '.join(SAMPLERS)}.")
    if name == "DDIM":
        return SAMPLERS[name], "ddim_uniform"
    if schedule not in SCHEDULES:
        raise MaquetteError(f"ComfyUI's KSampler has no schedule {schedule}; these it has: {', '.join(SCHEDULES)}.")
    return SAMPLERS[name], SCHEDULES[schedule]


def _opened(made: Workflow, base: str, prompt: str, settings: DrawSettings, facts: Facts) -> _Model:
    """Checkpoint, VAE, LoRAs and clip skip. A checkpoint is loaded once."""
    folder = Path(base).is_dir()
    kind, key = ("DiffusersLoader", "model_path") if folder else ("CheckpointLoaderSimple", "ckpt_name")
    inputs = {key: Path(base).name}
    wanted = {"class_type": kind, "inputs": inputs}
    loader = next((number for number, node in made.nodes.items() if node == wanted), "")
    loader = loader or made.add(kind, **inputs)
    model = _Model([loader, 0], [loader, 1], [loader, 2])
    if facts.vae:
        model.vae = [made.add("VAELoader", vae_name=Path(facts.vae).name), 0]
    if facts.prediction == "v_prediction" and facts.family != "sd2":
        sampling = made.add("ModelSamplingDiscrete", model=model.model, sampling="v_prediction", zsnr=False)
        model.model = [sampling, 0]
    if facts.prediction == "flow":
        raise MaquetteError("ComfyUI has no node that runs a Stable Diffusion turned to flow.")
    _add_loras(made, model, prompt, settings)
    if settings.clip_skip > 1 and facts.family != "sdxl":
        model.clip = [made.add("CLIPSetLastLayer", clip=model.clip, stop_at_clip_layer=-settings.clip_skip), 0]
    if settings.cfg_rescale:
        model.model = [made.add("RescaleCFG", model=model.model, multiplier=settings.cfg_rescale), 0]
    return model


def _add_loras(made: Workflow, model: _Model, prompt: str, settings: DrawSettings) -> None:
    plain, networks = parse_networks(_kept(prompt, settings))
    tags = tags_of(networks, plain)
    files = find_loras([tag.name for tag in tags], settings.lora_dir) if tags else {}
    for tag in tags:
        name = files[tag.name].name
        inputs = {"model": model.model, "clip": model.clip, "lora_name": name}
        node = made.add("LoraLoader", **inputs, strength_model=tag.unet, strength_clip=tag.te)
        model.model, model.clip = [node, 0], [node, 1]
        if tag.blocks is not None or tag.rank is not None or tag.start or tag.stop < float("inf"):
            made.note(f"LoraLoader applies {name} whole and at every step: lbw, dyn, start and stop are left out.")


def _prompts(
    made: Workflow, model: _Model, prompt: str, negative: str, settings: DrawSettings, facts: Facts
) -> tuple[Link, Link]:
    found = []
    for plain in (_said(prompt, settings), _kept(negative, settings)):
        node = made.add("CLIPTextEncode", clip=model.clip, text=_written(made, plain, settings, facts.embeddings))
        found.append([node, 0])
    return found[0], found[1]


def _kept(text: str, settings: DrawSettings) -> str:
    return strip_comments(text) if settings.prompt_comments else text


def _said(prompt: str, settings: DrawSettings) -> str:
    """A prompt without comments and without the tags of LoRAs."""
    return parse_networks(_kept(prompt, settings))[0]


def _written(made: Workflow, text: str, settings: DrawSettings, embeddings: tuple[str, ...]) -> str:
    """A1111's weights in brackets as ComfyUI writes them, `(words:1.21)`, and names of embeddings."""
    parts: list[list[str | float]] = [[text, 1.0]] if settings.emphasis == "None" else parse_attention(text)
    words = []
    for piece, weight in parts:
        plain = re.sub(r"([()\\])", r"\\\1", str(piece))
        if str(piece) == "BREAK":
            made.note("BREAK has no equal in CLIPTextEncode and is left out.")
            continue
        words.append(plain if weight == 1 or settings.emphasis == "Ignore" else f"({plain}:{float(weight):g})")
        if weight != 1 and settings.emphasis in ("Original", "No norm"):
            made.note(
                "ComfyUI weighs words against an empty prompt: what stands in brackets counts a little otherwise."
            )
    joined = "".join(words)
    for name in embeddings:
        joined = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", lambda m: f"embedding:{m[0]}", joined)
    return joined


def _controlled(
    made: Workflow, model: _Model, positive: Link, negative: Link, settings: DrawSettings
) -> tuple[Link, Link]:
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


def _begun(
    made: Workflow, model: _Model, positive: Link, negative: Link, settings: DrawSettings, facts: Facts
) -> tuple[Link, Link, Link]:
    """The latents to begin from, and the prompts, which an inpainting model is told the mask with."""
    width, height = facts.size
    if settings.init_image is None:
        empty = made.add("EmptyLatentImage", width=width, height=height, batch_size=1)
        return [empty, 0], positive, negative
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
        return [made.add("VAEEncode", pixels=image, vae=model.vae), 0], positive, negative
    if settings.mask_blur:
        made.note("ComfyUI's own nodes do not blur a mask: its border is hard there.")
    if facts.channels == 9:
        inputs = {"positive": positive, "negative": negative, "vae": model.vae, "pixels": image, "mask": mask}
        node = made.add("InpaintModelConditioning", **inputs, noise_mask=True)
        return [node, 2], [node, 0], [node, 1]
    if settings.masked_content == "original":
        encoded = made.add("VAEEncode", pixels=image, vae=model.vae)
        return [made.add("SetLatentNoiseMask", samples=[encoded, 0], mask=mask), 0], positive, negative
    if settings.masked_content != "latent nothing":
        made.note(f"VAEEncodeForInpaint fills what is masked with grey, not with {settings.masked_content!r}.")
    inputs = {"pixels": image, "vae": model.vae, "mask": mask}
    return [made.add("VAEEncodeForInpaint", **inputs, grow_mask_by=0), 0], positive, negative


def _drawn(
    made: Workflow,
    model: _Model,
    positive: Link,
    negative: Link,
    latent: Link,
    settings: DrawSettings,
    facts: Facts,
    last: bool,
) -> Link:
    sampler, schedule = _names(settings.sampler)
    how = {"cfg": facts.cfg_scale, "sampler_name": sampler, "scheduler": schedule}
    steps = settings.steps
    start, end = 0, 10_000
    if settings.init_image is not None:
        if settings.exact_steps and not (last and settings.refiner):
            inputs = {"model": model.model, "positive": positive, "negative": negative, "latent_image": latent}
            node = made.add("KSampler", **inputs, seed=settings.seed, steps=steps, **how, denoise=settings.strength)
            return [node, 0]
        start = max(0, steps - max(1, image_steps(settings.sampler, steps, settings.strength)))
    switched = last and settings.refiner is not None
    if switched:
        end = max(start, round(steps * settings.refiner_switch_at))
        made.note("ComfyUI switches to the refiner after a number of steps, here by the noise that is left.")
    node = made.add(
        "KSamplerAdvanced", model=model.model, add_noise="enable", noise_seed=settings.seed, steps=steps, **how,
        positive=positive, negative=negative, latent_image=latent, start_at_step=start, end_at_step=end,
        return_with_leftover_noise="enable" if switched else "disable",
    )  # fmt: skip
    return _refined(made, [node, 0], settings, facts.size, steps, end, how) if switched else [node, 0]


def _refined(
    made: Workflow, latent: Link, settings: DrawSettings, size: tuple[int, int], steps: int, start: int,
    how: Mapping[str, Any],
) -> Link:  # fmt: skip
    loader = made.add("CheckpointLoaderSimple", ckpt_name=Path(str(settings.refiner)).name)
    prompts = []
    for text, score in ((settings.prompt, 6.0), (settings.negative_prompt, 2.5)):
        plain = _written(made, _said(text, settings), settings, ())
        words = {"clip": [loader, 1], "text": plain, "ascore": score, "width": size[0], "height": size[1]}
        prompts.append([made.add("CLIPTextEncodeSDXLRefiner", **words), 0])
    node = made.add(
        "KSamplerAdvanced", model=[loader, 0], add_noise="disable", noise_seed=settings.seed, steps=steps, **how,
        positive=prompts[0], negative=prompts[1], latent_image=latent, start_at_step=start, end_at_step=10_000,
        return_with_leftover_noise="disable",
    )  # fmt: skip
    return [node, 0]


def _again(made: Workflow, first: _Model, latent: Link, settings: DrawSettings, facts: Facts) -> tuple[_Model, Link]:
    """Hires fix: the latents enlarged and drawn on."""
    size = Enlargement.of(settings, *facts.size, 8)
    if (size.width, size.height) != (size.kept_width, size.kept_height):
        raise MaquetteError("ComfyUI's own nodes do not cut as hires fix does; give a size of the first one's shape.")
    prompt = settings.hires_prompt or settings.prompt
    negative = settings.hires_negative_prompt or settings.negative_prompt
    model = first
    if settings.hires_base or settings.hires_prompt:
        model = _opened(made, settings.hires_base or facts.base, prompt, settings, facts)
    positive, negated = _prompts(made, model, prompt, negative, settings, facts)
    positive, negated = _controlled(made, model, positive, negated, settings)
    sides = {"width": size.width, "height": size.height, "crop": "disabled"}
    way = settings.hires_upscaler
    if way in LATENT:
        if "antialiased" in way:
            made.note("LatentUpscale does not antialias.")
        latent = [made.add("LatentUpscale", samples=latent, upscale_method=LATENT_WAYS[way], **sides), 0]
    else:
        image: Link = [made.add("VAEDecode", samples=latent, vae=first.vae), 0]
        if way not in PIXEL_WAYS:
            network = made.add("UpscaleModelLoader", model_name=Path(way).name)
            image = [made.add("ImageUpscaleWithModel", upscale_model=[network, 0], image=image), 0]
        image = [made.add("ImageScale", image=image, upscale_method=PIXEL_WAYS.get(way, "lanczos"), **sides), 0]
        latent = [made.add("VAEEncode", pixels=image, vae=model.vae), 0]
    sampler, schedule = _names(settings.hires_sampler or settings.sampler)
    steps = settings.hires_steps or settings.steps
    node = made.add(
        "KSampler", model=model.model, seed=settings.seed, steps=steps,
        cfg=settings.hires_cfg_scale or facts.cfg_scale, sampler_name=sampler, scheduler=schedule,
        positive=positive, negative=negated, latent_image=latent, denoise=settings.strength,
    )  # fmt: skip
    if settings.refiner:
        made.note("The refiner of a second drawing is left out.")
    return model, [node, 0]


def _notes(made: Workflow, settings: DrawSettings) -> None:
    """What differs whatever is drawn."""
    name = schedule_of(settings.sampler)[0]
    if settings.noise_source != "CPU":
        made.note("ComfyUI draws its noise on the CPU: choose the noise source CPU for the same beginning.")
    if kind_of(settings.sampler).brownian or name.endswith(" a"):
        made.note(
            f"{name} adds noise of its own at each step, which ComfyUI draws otherwise: the picture is a sibling."
        )
    if settings.batch_size * settings.batch_count > 1:
        made.note("The workflow makes the first picture; raise its seed by one for the next.")
