"""`maquette regularize`: pictures of the class, drawn by the base itself, that keep training from changing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.photos import RegularizeConfig
from ..data.images import find_photos
from ..data.layouts import read_folder
from ..data.wording import Wording
from ..errors import MaquetteError
from ..evaluation.words import POCKET_STYLED, STYLED
from ..events import Cancel, Event, Listener, ignore, until
from ..families.base import BaseModel
from ..files import require_place, write_text
from ..prompts import malformed_tag, parse_networks, strip_comments
from ..sampling.samplers import find_sampler, schedule_notice, schedule_of, suited

SHEET_SIDE = 8  # the contact sheet has at most 8 x 8 pictures


@dataclass
class RegularizeResult:
    """`made` were drawn now; with those that were `there` the folder holds `count`."""

    out: str
    count: int
    there: int
    made: int
    prompts: list[str]
    sheet: str | None
    paths: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(
    config: RegularizeConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    base: BaseModel | None = None,
) -> RegularizeResult:
    """Fill the folder up to the number, after a kill as well: what is there is kept and counted. base: one in memory.

    Picture i always has seed + i and prompt i modulo their number, so a folder that was interrupted ends the same.
    Raises MaquetteError when the photos cannot be read or no class is known.
    """
    on_event = until(cancel, on_event)
    config = config.model_copy(update={"sampler": find_sampler(config.sampler)})
    require_place(config.out)
    prompts, count = _plan(config, on_event)
    if notice := schedule_notice(config.sampler):
        on_event(Event("warning", {"message": notice}))
    there = len(find_photos(config.out)) if config.out.is_dir() else 0
    result = RegularizeResult(str(config.out), max(count, there), there, 0, prompts, None)
    places = _free_places(config.out, count - there)
    if places:
        _draw(config, base or _open(config, on_event), prompts, places, result, on_event)
    if places or (there and not _sheet_path(config.out).exists()):  # a kill after the last picture
        result.sheet = _contact_sheet(config.out)
        on_event(Event("saved", {"path": result.sheet}))
    on_event(Event("done", result.to_json()))
    return result


def _plan(config: RegularizeConfig, on_event: Listener) -> tuple[list[str], int]:
    """The prompts and the number of pictures. What `maquette check` says of the photos' folder is said here too."""
    given = [strip_comments(prompt).strip() for prompt in config.prompt]  # as they are drawn, for captions are words
    for prompt in given:
        plain, tags = parse_networks(prompt)
        if tags or malformed_tag(plain):
            raise MaquetteError(
                f"The prompt {prompt[:200]!r} names a LoRA: regularization images are what the base draws alone, "
                "and it would be read as words. Leave it out, or draw with maquette generate."
            )
    subjects = [config.subject] if config.subject else []
    samples, captions = 0, []
    if config.photos is not None:
        dataset = read_folder(config.photos, config.subject, repeats=config.repeats)
        for problem in dataset.problems:
            on_event(Event("warning", {"message": problem.message}))
        samples = dataset.samples("instance")
        subjects = list(dict.fromkeys(p.subject for p in dataset.of("instance") if p.subject)) or subjects
        captions = [photo.caption for photo in dataset.of("instance")]
    if not config.prompt and not subjects:
        raise MaquetteError(f"The class is not known: name the subject of {config.photos} (--subject 'ohwx man').")
    found = (prompt for subject in subjects for prompt in _of_class(subject, captions, config.base))
    return given or list(dict.fromkeys(found)), config.count or samples


def _of_class(subject: str, captions: Sequence[str], base: str) -> list[str]:
    """What the base draws beside photos of the subject: its class; of a style what the captions name, or other things,
    without the style.
    """
    wording = Wording.for_subject(subject)
    if not wording.style:
        return [wording.instead()]
    named = {caption: wording.caption_instead(caption) for caption in captions}
    scenes = [scene for caption, scene in named.items() if scene not in (caption, "a photo", wording.instead())]
    return scenes or [wording.instead(thing) for thing in (POCKET_STYLED if base == "pocket" else STYLED)]


def _name(index: int) -> str:
    return f"class-{index:05d}"


def _free_places(out: Path, missing: int) -> list[int]:
    """Numbers of the pictures to draw: the lowest that are not there."""
    places: list[int] = []
    index = 0
    while len(places) < missing:
        if not (out / f"{_name(index)}.png").exists():
            places.append(index)
        index += 1
    return places


def _open(config: RegularizeConfig, on_event: Listener) -> BaseModel:
    import torch

    from .. import families
    from ..sampling.opening import require_drawable
    from ..training.defaults import pick_device

    device = pick_device(config.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    base = families.load(config.base, dtype, device, config.vae, config.prediction_type)
    require_drawable(base)
    for notice in base.notices:
        on_event(Event("warning", {"message": notice}))
    return base


def _draw(
    config: RegularizeConfig,
    base: BaseModel,
    prompts: Sequence[str],
    places: list[int],
    result: RegularizeResult,
    on_event: Listener,
) -> None:
    """Draw the pictures batch by batch. A caption is written before its picture: no picture is ever without one."""
    from ..formats.png import format_infotext, number_text, write_png
    from ..sampling.images import to_image
    from ..sampling.prompt_pictures import draw_prompts
    from .generate import GenerateConfig, cfg_scale

    width, height = config.width or base.spec.native_size, config.height or base.spec.native_size
    scale = cfg_scale(GenerateConfig(prompt="", cfg_scale=config.cfg_scale), base)
    sampler, schedule = schedule_of(suited(config.sampler, base.scheduler_config))
    began = time.perf_counter()
    for start in range(0, len(places), config.batch_size):
        batch = places[start : start + config.batch_size]
        texts = [prompts[index % len(prompts)] for index in batch]
        decoded = draw_prompts(
            base,
            texts,
            config.negative_prompt,
            seeds=[config.seed + index for index in batch],
            sampler=config.sampler,
            steps=config.steps,
            cfg_scale=scale,
            width=width,
            height=height,
        )
        for index, text, pixels in zip(batch, texts, decoded, strict=True):
            path = config.out / f"{_name(index)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = {
                "Steps": config.steps, "Sampler": sampler, "Schedule type": schedule, "CFG scale": number_text(scale),
                "Seed": config.seed + index, "Size": f"{width}x{height}", "Model hash": base.content_hash[:10],
                "Model": Path(base.source).absolute().stem, "VAE hash": base.vae_hash[:10] or None,
                "VAE": Path(base.vae_source).name or None, "Prediction type": base.told_prediction or None,
                "RNG": "CPU",
            }  # fmt: skip
            write_text(path.with_suffix(".txt"), text + "\n")
            write_png(to_image(pixels), path, format_infotext(text, config.negative_prompt, values))
            result.paths.append(str(path))
        result.made = start + len(batch)
        left = (time.perf_counter() - began) / result.made * (len(places) - result.made)
        progress = {"what": "drawing", "done": result.made, "of": len(places), "remaining_seconds": left}
        on_event(Event("progress", progress))


def _sheet_path(out: Path) -> Path:
    return out.parent / f"{out.resolve().name}-sheet.png"


def _contact_sheet(out: Path) -> str:
    """A sheet of up to 64 of the pictures, beside the folder, where it cannot be taken for one of them."""
    from ..data.images import open_photo
    from ..report.sheet import sheet

    photos = find_photos(out)
    step = -(-len(photos) // SHEET_SIDE**2)
    images = []
    for file in photos[::step]:
        image = open_photo(file)
        image.thumbnail((128, 128))
        images.append(image)
    path = _sheet_path(out)
    sheet(images, SHEET_SIDE, title=f"{out.resolve().name}: {len(photos)} pictures").save(path)
    return str(path)
