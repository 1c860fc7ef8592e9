"""`maquette train`: from a folder of photos to checkpoints, sample pictures and a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import methods
from ..config import TrainConfig
from ..data.cache import cache_folder
from ..data.dataset import manifest
from ..errors import MaquetteError
from ..families.folders import read_json
from ..fast import processor
from ..run import Event, Listener, RunFolder, ignore, write_json, write_text
from .training import defaults, memory, state
from .training.determinism import computer, differences, same_bits, threads_of
from .training.distributed import Team, require_enough, team
from .training.job import Job, prepare
from .training.loop import Cancel, Training, TrainResult
from .training.notices import notices
from .training.room import intact
from .training.trackers import following


def run(config: TrainConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> TrainResult:
    """Train from the beginning, in a new run folder. Setting `cancel` ends the run after the step at work, all saved.

    Raises MaquetteError for everything that is the user's to mend.
    """
    with team(config.device) as crew, ExitStack() as held:
        held.enter_context(same_bits(config.deterministic))
        on_event = on_event if crew.leads else ignore
        named = config.out or RunFolder.free_path("runs", config.subject or config.photos.resolve().name)
        folder = RunFolder(crew.agree(str(named)))
        if crew.leads:
            RunFolder.refuse_taken(folder.path)
        job = _prepared(crew, config, folder, on_event)
        job.config = job.config.model_copy(update={"out": folder.path})
        if crew.leads:
            RunFolder.create(folder.path)
            held.enter_context(folder.locked())
            held.enter_context(intact(folder))
            RunFolder.refuse_taken(folder.path)  # another run may have come and gone before the lock
            write_json(folder.dataset, manifest(job.dataset))
            write_json(folder.computer, computer(job.base.device, crew.size))
            write_text(folder.config, job.config.to_toml())  # last: a folder with it can be resumed
            on_event = held.enter_context(following(job.config, folder, on_event))
        for message in [*_other_type(config, job), *notices(config, job.base)]:
            on_event(Event("warning", {"message": message}))
        return Training(folder, job, on_event, cancel or Cancel(), crew).go(0)


def resume(
    path: str | Path, changes: dict[str, Any] | None = None, on_event: Listener = ignore, cancel: Cancel | None = None
) -> TrainResult:
    """Go on with a run from its newest whole state, to the same final file as if it had never stopped.

    changes: keys of TrainConfig; only `steps` and what does not touch the weights may be changed.
    """
    folder = RunFolder.open(path)
    config = TrainConfig.read(folder.config)
    changed = _changed(config, changes or {})
    with team(config.device) as crew, ExitStack() as held:
        held.enter_context(same_bits(changed.deterministic))
        on_event = on_event if crew.leads else ignore
        if crew.leads:
            held.enter_context(folder.locked())
            held.enter_context(intact(folder))
            folder.clear_unfinished()
        began = read_json(folder.computer) if folder.computer.exists() else {}
        held.enter_context(threads_of(began, crew.size))
        begun = state.latest(folder) is not None  # then the file that the run began from is needed no more
        job = _prepared(crew, changed.model_copy(update={"from_lora": None}) if begun else changed, folder, on_event)
        job.config = job.config.model_copy(update={"from_lora": changed.from_lora})
        start = _restore(folder, job)
        crew.wait()  # until all have read the state
        if crew.leads:
            state.clear_newer(folder, start)
            folder.keep_metrics_until(start)
            if changed != config:
                write_text(folder.config, job.config.to_toml())
            on_event = held.enter_context(following(job.config, folder, on_event))
        unlike = _unlike(config, job, start, differences(began, computer(job.base.device, crew.size)))
        for message in [*_other_type(config, job), *unlike]:
            on_event(Event("warning", {"message": message}))
        return Training(folder, job, on_event, cancel or Cancel(), crew).go(start)


def _other_type(config: TrainConfig, job: Job) -> list[str]:
    """A sentence where the processor does not compute in the type that was asked for."""
    return processor.notices(config.dtype, defaults.DTYPES[job.config.dtype])


def _unlike(before: TrainConfig, job: Job, start: int, other: list[str]) -> Iterator[str]:
    """Sentences on why a resumed run will not end as it would have ended."""
    if other and (job.base.device.type == "cpu" or job.config.deterministic):
        yield (
            f"The run began under other conditions ({'; '.join(other)}): it goes on, but the last digits of its "
            "weights will not be those of an uninterrupted run."
        )
    if job.config.steps != before.steps:
        yield f"The run now ends at step {job.config.steps}: from step {start} the learning rate follows that length."


def _prepared(crew: Team, config: TrainConfig, folder: RunFolder, on_event: Listener) -> Job:
    """The job, made ready in the first process before the others, which then find the photos encoded."""
    if not crew.leads:
        crew.wait()
    try:
        job = prepare(config, cache_folder(folder.path.parent), _progress(on_event))
    except RuntimeError as error:
        if not memory.exhausted(error):
            raise
        raise MaquetteError(
            "The memory does not suffice to open the base and to encode the largest photo; lower resolution."
        ) from error
    require_enough(job.config.batch_size or 1, crew.size)
    job.objective.share = crew.share()
    if methods.METHODS[config.method].product == "model":
        job.optimizer = crew.split(job.optimizer)
    if crew.leads:
        crew.wait()
    return job


def _restore(folder: RunFolder, job: Job) -> int:
    """Put the newest whole state back. Returns its step, 0 when there is none."""
    _refuse_other_photos(folder, job)
    found = state.latest(folder)
    if found is None:
        return 0
    state.load(found[1], job.attached, job.optimizer, job.average, job.scale)
    return found[0]


def _progress(on_event: Listener) -> Any:
    return lambda what, done, of: on_event(Event("progress", {"what": what, "done": done, "of": of}))


FREE_TO_CHANGE = {
    "steps", "gradient_accumulation", "gradient_checkpointing", "save_every_steps", "save_every_epochs",
    "keep_last", "keep_steps", "trackers", "sample_prompts", "sample_seed", "sample_steps", "sample_cfg_scale",
}  # fmt: skip


def _changed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    before = config.model_dump(exclude_none=True)
    if changes.keys() & {"save_every_steps", "save_every_epochs"}:  # one takes the other's place
        before = {key: value for key, value in before.items() if not key.startswith("save_every_")}
    changed = TrainConfig.parse(before | changes, "the command line")
    fixed = [key for key in changes if key not in FREE_TO_CHANGE and getattr(changed, key) != getattr(config, key)]
    if fixed:
        allowed = ", ".join(sorted(FREE_TO_CHANGE))
        raise MaquetteError(f"A resumed run cannot change {fixed[0]!r}, only {allowed}; start a new run for the rest.")
    return changed


def _refuse_other_photos(folder: RunFolder, job: Job) -> None:
    """The photos must be those that the run began with."""
    before = json.loads(folder.dataset.read_text(encoding="utf-8"))["photos"]
    now = manifest(job.dataset)["photos"]
    keys = ("name", "sha256", "caption", "repeats", "role", "bucket")
    old, new = ([tuple(map(str, (photo[key] for key in keys))) for photo in photos] for photos in (before, now))
    if old != new:
        name = sorted(set(old) ^ set(new))[0][0]
        raise MaquetteError(
            f"The photos have changed since {folder.path} began ({name}); put them back, or start a new run."
        )
