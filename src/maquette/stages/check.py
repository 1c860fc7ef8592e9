"""`maquette check`: what is wrong with a folder of photos, what will be learned from it, and what that costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config.photos import CheckConfig
from ..data import findings
from ..data.buckets import plan
from ..data.dataset import Dataset, Photo, Problem
from ..data.doctor import Look, Looks, longest_caption
from ..data.faces import FaceReader, examine_faces
from ..data.golden_rule import GoldenRule, golden_rule
from ..data.layouts import read_folder
from ..data.surroundings import observations
from ..events import Cancel, Listener, ignore, progress, until
from ..training.costs import Costs, base_facts, estimate

_MOST_FOLDERS = 6  # named in a sentence


@dataclass
class CheckResult:
    """The findings. `photos` are those that will be trained on; `problems` name everything else."""

    folder: str
    layout: str
    base: str
    resolution: int
    subject: str | None
    images: int  # instance photos that can be used
    class_images: int
    samples: int  # images x repeats
    class_samples: int
    costs: Costs
    golden_rule: GoldenRule
    observations: list[str]  # what the photos have in common, a sentence each
    photos: list[dict[str, Any]]
    problems: list[Problem]
    max_token_length: int
    dataset: Dataset

    @property
    def left_out(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.left_out]

    @property
    def blocking(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.blocking]

    def figures(self) -> list[str]:
        """The counts and costs, one sentence each."""
        costs = self.costs
        lines = [
            f"{_count(self.images, 'photo')} x repeats = {_count(self.samples, 'sample')} per epoch; "
            f"batch size {costs.batch_size}: {self._pace()}, "
            f"{_count(costs.steps, 'step')} in all ({_rounded(costs.epochs)} epochs).",
            f"Trained at {self._sizes()}; "
            f"LoRA file: about {megabytes(costs.file_bytes)}, the run about {megabytes(costs.disk_bytes)} on disk.",
            self._tokens(),
            f"Regularization images: {costs.regularization_needed} would be one per sample, "
            f"{costs.regularization_present} are there.",
        ]
        if costs.effort is not None:
            lines.append(
                f"Training takes about {_duration(costs.effort.seconds)} and {megabytes(costs.effort.memory_bytes)} "
                f"of memory besides the program's own half gigabyte: {costs.effort.how}."
            )
        if self.left_out:
            lines.append(f"Left out: {len(self.left_out)}, named above.")
        if self.base == "pocket":
            lines.append(findings.TOY)  # last, where nobody overlooks it
        return lines

    def _pace(self) -> str:
        size = self.costs.batch_size
        if size > self.samples > 0:
            return f"a step shows each sample {_rounded(size / self.samples)} times"
        per_epoch = self.samples / size
        return f"{_rounded(per_epoch)} step{'' if per_epoch == 1 else 's'} per epoch"

    def _tokens(self) -> str:
        counts = [photo["tokens"] for photo in self.photos]
        longest = f"up to {max(counts, default=0)} tokens"
        return f"Captions have {longest}, of which training reads {self.max_token_length} (max_token_length)."

    def _sizes(self) -> str:
        wanted = {photo.shape.resolution for photo in self.dataset.photos if photo.shape and photo.shape.resolution}
        if len(wanted) > 1:
            return "several sizes, as the data set file says: " + ", ".join(f"{w} x {h}" for w, h in sorted(wanted))
        return f"{self.resolution} x {self.resolution} pixels or the same area"

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "dataset"}
        fields["problems"] = [asdict(problem) for problem in self.problems]
        fields["costs"] = asdict(self.costs)
        rule = self.golden_rule
        fields["golden_rule"] = asdict(rule) | {"sometimes": dict(rule.sometimes), "sentences": rule.sentences()}
        return fields | {"ready": not self.blocking}


def run(config: CheckConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> CheckResult:
    """Read and decode every photo, judge it, and count; change nothing. Emits "progress".

    Raises MaquetteError when the folder or the base does not exist or no photo can be read.
    """
    on_event = until(cancel, on_event)
    facts = base_facts(config.base, config.vae, config.prediction_type)
    reader = FaceReader() if config.faces else None
    dataset, looks = _read(config, on_event)
    config = _with_settings(config, dataset)
    resolution = config.resolution or facts.native_size
    aspect_buckets = config.buckets if config.buckets is not None else facts.recipe.buckets
    dataset = plan(
        dataset, resolution, facts.latent_factor, aspect_buckets=aspect_buckets, no_upscale=config.no_upscale
    )
    tokens = tokenizer()
    costs = estimate(facts, dataset, config.rank, config.batch_size, config.steps, config.epochs)
    problems = [
        *_nothing_left(dataset),
        *_room(costs, config.out),
        *findings.of_photos(
            dataset, config.subject, looks, tokens, config.max_token_length, costs.steps * costs.batch_size
        ),
    ]
    if reader is not None:
        problems += examine_faces(dataset.of("instance"), reader, progress(on_event, "looking for faces"))
    subject = config.subject or ", ".join(dict.fromkeys(p.subject for p in dataset.of("instance") if p.subject)) or None
    return CheckResult(
        folder=str(config.photos),
        layout=dataset.layout,
        base=config.base,
        resolution=resolution,
        subject=subject,
        images=len(dataset.of("instance")),
        class_images=len(dataset.of("class")),
        samples=dataset.samples("instance"),
        class_samples=dataset.samples("class"),
        costs=costs,
        golden_rule=golden_rule(dataset.of("instance"), subject),
        observations=[*_as_kohya(dataset), *observations(dataset.of("instance"), looks)],
        photos=[_report(photo, longest_caption(photo, tokens)[1]) for photo in dataset.photos],
        problems=sorted(problems, key=lambda p: (not p.blocking, not p.left_out)),
        max_token_length=config.max_token_length,
        dataset=dataset,
    )


def _read(config: CheckConfig, on_event: Listener) -> tuple[Dataset, dict[Path, Look]]:
    """The photos, and what is measured on each."""
    looks = Looks()
    dataset = read_folder(
        config.photos,
        config.subject,
        reg=config.reg,
        repeats=config.repeats,
        alpha_mask=config.alpha_mask,
        look=looks.see,
        progress=progress(on_event, "reading photos"),
    )
    return dataset, looks


def _duration(seconds: float) -> str:
    """Rounded as roughly as it is known: "40 seconds", "12 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _rounded(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def tokenizer() -> Callable[[str], Sequence[int]]:
    """CLIP's tokens of a text; the vocabulary is the same for every base."""
    from ..formats.tokenizer import Tokenizer

    return Tokenizer().encode


def _with_settings(config: CheckConfig, dataset: Dataset) -> CheckConfig:
    """What a data set file asks for, where the user said nothing."""
    wishes = {key: dataset.settings[key] for key in ("resolution", "batch_size", "buckets") if key in dataset.settings}
    return CheckConfig.parse(wishes | config.model_dump(exclude_unset=True), str(config.photos))


def _as_kohya(dataset: Dataset) -> Iterable[str]:
    """How Kohya's folders are understood, and what its trainer would read otherwise."""
    if dataset.layout != "kohya":
        return
    photos = dataset.of("instance")
    read = dict.fromkeys((photo.path.parent.name, photo.repeats, photo.subject) for photo in photos)
    folders = [f"'{name}' is {repeats} x '{subject}'" for name, repeats, subject in list(read)[:_MOST_FOLDERS]]
    more = f" and {len(read) - _MOST_FOLDERS} more" if len(read) > _MOST_FOLDERS else ""
    yield f"Kohya's folders, repeats and subject: {', '.join(folders)}{more}."
    made = next((photo for photo in photos if photo.caption_source == "subject" and photo.subject), None)
    if made and made.caption != made.subject:
        yield f"Without a caption file a photo is '{made.caption}' here; to Kohya's trainer it is '{made.subject}'."


def _nothing_left(dataset: Dataset) -> list[Problem]:
    if dataset.of("instance"):
        return []
    message = f"No photo in {dataset.folder} is large enough to train on."
    return [Problem("nothing", "", message, blocking=True)]


def _room(costs: Costs, out: Path) -> list[Problem]:
    """A blocking problem when the disk that will hold the run is too full for it."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free >= costs.disk_bytes:
        return []
    message = (
        f"The disk of {existing} has {megabytes(free)} left and the run needs about {megabytes(costs.disk_bytes)}; "
        "make room or choose another --out."
    )
    return [Problem("disk", "", message, blocking=True)]


def _report(photo: Photo, tokens: int) -> dict[str, Any]:
    assert photo.crop is not None
    return {
        "name": photo.name,
        "role": photo.role,
        "size": list(photo.size),
        "bucket": list(photo.crop.bucket),
        "crop": [round(x) for x in photo.crop.box],
        "enlarged": round(photo.crop.enlargement, 3),
        "cut_off": round(photo.crop.lost, 3),
        "repeats": photo.repeats,
        "caption": photo.caption,
        "caption_source": photo.caption_source,
        "tokens": tokens,
        "mask": str(photo.mask) if photo.mask else None,
        "notes": list(photo.notes),
    }
