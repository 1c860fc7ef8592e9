"""A drawing's settings as a ComfyUI workflow in its API format, which makes the like picture.

Files are named as ComfyUI's folders hold them, without their path. What ComfyUI has no equal for ends in an error where
the picture would be another one, and in a note where it would be nearly the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..prompts import parse_attention, parse_composable, parse_networks, parse_schedule, strip_comments
from .comfy_nodes import LATENT_WAYS, NEARLY, PIXEL_WAYS, SAMPLERS, SCHEDULES
from .comfy_parts import Facts, Link, Model, Workflow
from .comfy_pictures import begun, controlled
from .draw_settings import DrawSettings
from .enlarging import LATENT, Enlargement
from .lora_folder import find_loras
from .lora_tags import tags_of
from .samplers import image_steps, schedule_of


def workflow(settings: DrawSettings, facts: Facts) -> Workflow:
    """The workflow of the first picture. Raises MaquetteError, saying what, for settings that ComfyUI cannot have."""
    _require_possible(settings, facts)
    made = Workflow()
    model = _opened(made, facts.base, settings.prompt, settings, facts)
    positive, negative = _prompts(made, model, settings.prompt, settings.negative_prompt, settings, facts)
    positive, negative = controlled(made, model, positive, negative, settings)
    latent, positive, negative, kept = begun(made, model, positive, negative, settings, facts)
    latent = _drawn(made, model, positive, negative, latent, settings, facts, last=not settings.hires)
    if settings.hires:
        model, latent = _again(made, model, latent, settings, facts)
    inputs: dict[str, Any] = {"samples": latent, "vae": model.vae}
    if settings.tiled_vae:
        image = made.add("VAEDecodeTiled", **inputs, tile_size=512, overlap=64, temporal_size=64, temporal_overlap=8)
    else:
        image = made.add("VAEDecode", **inputs)
    if kept is not None:  # as A1111 does, whose VAE does not touch what is kept
        picture, mask = kept
        inputs = {"destination": picture, "source": [image, 0], "mask": mask}
        image = made.add("ImageCompositeMasked", **inputs, x=0, y=0, resize_source=False)
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


def _opened(made: Workflow, base: str, prompt: str, settings: DrawSettings, facts: Facts) -> Model:
    """Checkpoint, VAE, LoRAs and clip skip. A checkpoint is loaded once."""
    folder = Path(base).is_dir()
    kind, key = ("DiffusersLoader", "model_path") if folder else ("CheckpointLoaderSimple", "ckpt_name")
    inputs = {key: Path(base).name}
    wanted = {"class_type": kind, "inputs": inputs}
    loader = next((number for number, node in made.nodes.items() if node == wanted), "")
    loader = loader or made.add(kind, **inputs)
    model = Model([loader, 0], [loader, 1], [loader, 2])
    if facts.vae:
        model.vae = [made.add("VAELoader", vae_name=Path(facts.vae).name), 0]
    v = facts.prediction == "v_prediction"
    if facts.zero_snr or (v and facts.family != "sd2"):
        kind = "v_prediction" if v else "eps"
        model.model = [made.add("ModelSamplingDiscrete", model=model.model, sampling=kind, zsnr=facts.zero_snr), 0]
    if facts.prediction == "flow":
        raise MaquetteError("ComfyUI has no node that runs a Stable Diffusion turned to flow.")
    _add_loras(made, model, prompt, settings)
    if settings.clip_skip > 1 and facts.family != "sdxl":
        model.clip = [made.add("CLIPSetLastLayer", clip=model.clip, stop_at_clip_layer=-settings.clip_skip), 0]
    if settings.cfg_rescale:
        model.model = [made.add("RescaleCFG", model=model.model, multiplier=settings.cfg_rescale), 0]
    return model


def _add_loras(made: Workflow, model: Model, prompt: str, settings: DrawSettings) -> None:
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
    made: Workflow, model: Model, prompt: str, negative: str, settings: DrawSettings, facts: Facts
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


def _drawn(
    made: Workflow,
    model: Model,
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


def _again(made: Workflow, first: Model, latent: Link, settings: DrawSettings, facts: Facts) -> tuple[Model, Link]:
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
    positive, negated = controlled(made, model, positive, negated, settings)
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


def _schedules(settings: DrawSettings) -> set[str]:
    """A1111's names, of both drawings."""
    samplers = [settings.sampler, *([settings.hires_sampler] if settings.hires and settings.hires_sampler else [])]
    return {schedule_of(sampler)[1] for sampler in samplers}


def _notes(made: Workflow, settings: DrawSettings) -> None:
    """What differs whatever is drawn."""
    name = schedule_of(settings.sampler)[0]
    if "Beta" in _schedules(settings):
        made.note("ComfyUI's Beta schedule spaces timesteps, A1111's spaces levels: the steps are others.")
    if settings.noise_source != "CPU":
        made.note("ComfyUI draws its noise on the CPU: choose the noise source CPU for the same beginning.")
    if name == "LCM" or name.endswith(" a"):
        made.note(
            f"{name} adds noise of its own at each step, which ComfyUI draws otherwise: the picture is a sibling."
        )
    if name in NEARLY:
        made.note(f"ComfyUI's {name} {NEARLY[name]}.")
    if settings.batch_size * settings.batch_count > 1:
        made.note("The workflow makes the first picture; raise its seed by one for the next.")
