"""A run from its configuration to its files, in this process: the run folder, what is set meanwhile, and the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..core.dtypes import DTYPES
from ..data.cache import cache_folder
from ..data.dataset import manifest
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, progress_of_parts
from ..fast import processor
from ..files import write_json, write_text
from ..run_folder import RunFolder
from . import identity, resuming, state
from .disk import explain_full_disk
from .distributed import ALONE, process_group
from .environment import began_on, differences, environment, pinned_threads
from .idle import idle
from .job import Job
from .notices import notices
from .preparing import prepare
from .process_settings import process_settings
from .trackers import following
from .train_result import TrainResult
from .trainer import Trainer


@contextmanager
def begun(
    config: TrainConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    cache: Path | None = None,
    base_first: bool = False,
    computes: bool = True,
) -> Iterator[Trainer]:
    """A new run, ready for its first step. Its folder is held within the block, as is what a run sets in its process.

    cache: folder of latents that earlier runs encoded; None: the one beside the run, or $MAQUETTE_CACHE. base_first:
    draw the base's sample pictures before the first step, for someone who watches; the files of the run are the same.
    computes: whether this run computes its own steps; if not, others set this process and compute them (`slots`).
    """
    with ExitStack() as held:
        processes = held.enter_context(process_group(config.device)) if computes else ALONE
        on_event = on_event if processes.is_main else ignore
        if computes:
            held.enter_context(process_settings(config, on_event, cancel))
        named = config.out or RunFolder.free_path("runs", config.subject or config.photos.resolve().name)
        folder = RunFolder(processes.broadcast(str(named)))
        if processes.is_main:
            RunFolder.refuse_taken(folder.path)
        latents = cache or cache_folder(folder.path.parent)
        job = prepare(config, latents, progress_of_parts(on_event), computes=computes, processes=processes)
        job.config = job.config.model_copy(update={"out": folder.path})
        if processes.is_main:
            RunFolder.create(folder.path)
            held.enter_context(folder.locked())
            held.enter_context(explain_full_disk(folder))
            RunFolder.refuse_taken(folder.path)  # another run may have come and gone before the lock
            folder.clear_unfinished()  # of one that was killed before it had begun
            write_json(folder.dataset, manifest(job.dataset))
            write_json(folder.computer, environment(job.base.device, processes.size))
            write_text(folder.config, job.config.to_toml())  # last: a folder with it can be resumed
            on_event = held.enter_context(following(job.config, folder, on_event))
        told = [*notices(config, job.base), *idle(config, job.config, job.dataset)]
        for message in [*_other_type(config, job), *told]:
            on_event(Event("warning", {"message": message}))
        trainer = Trainer(folder, job, on_event, cancel or Cancel(), processes)
        trainer.base_first = base_first
        yield trainer


def resume(
    path: str | Path,
    changes: dict[str, Any] | None = None,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    cache: Path | None = None,
    base_first: bool = False,
) -> TrainResult:
    """Go on with a run from its newest whole state, to the same final file as if it had never stopped.

    changes: keys of TrainConfig; only `steps` and what does not touch the weights may be changed. cache,
    base_first: see `begun`.
    """
    folder = RunFolder.open(path)
    config = resuming.read_config(folder)
    changed = _changed(config, changes or {})
    with process_group(config.device) as processes, ExitStack() as held:
        on_event = on_event if processes.is_main else ignore
        held.enter_context(process_settings(changed, on_event, cancel))
        if processes.is_main:
            held.enter_context(folder.locked())
            held.enter_context(explain_full_disk(folder))
            folder.stop.unlink(missing_ok=True)  # of an earlier part of the run
        start = resuming.find_start(folder, config, changed.steps or 0)
        began, notes = began_on(folder.computer)
        held.enter_context(pinned_threads(began, processes.size))
        # where there is a state, the file that the run began from is needed no more
        begins = changed.model_copy(update={"from_lora": start.file if start.step else changed.from_lora})
        latents = cache or cache_folder(folder.path.parent)
        job = prepare(begins, latents, progress_of_parts(on_event), processes=processes)
        job.config = job.config.model_copy(update={"from_lora": changed.from_lora})
        notes += [*start.notes, *resuming.refuse_other_contents(folder, start, job)]
        if start.state is not None:
            state.load(start.state, job.attached, job.optimizer, job.ema, job.scaler)
        processes.barrier()  # until all have read the state
        if processes.is_main:
            notes += _put_in_order(folder, job, start.step)
            if changed != config:
                write_text(folder.config, job.config.to_toml())
            on_event = held.enter_context(following(job.config, folder, on_event))
        notes += _other_type(config, job)
        notes += _unlike(config, job, start.step, differences(began, environment(job.base.device, processes.size)))
        for message in notes:
            on_event(Event("warning", {"message": message}))
        trainer = Trainer(folder, job, on_event, cancel or Cancel(), processes)
        trainer.base_first = base_first
        return trainer.train(start.step)


def _put_in_order(folder: RunFolder, job: Job, step: int) -> Iterator[str]:
    """Remove what is newer than `step`, which will be written again. Yields what of the rest is not as it was."""
    folder.clear_unfinished()
    state.clear_newer(folder, step)
    folder.keep_metrics_until(step)
    write_json(folder.dataset, manifest(job.dataset))  # the photos are proven; what else it told may not have been true
    lines = {line["step"] for line in folder.read_metrics()}
    if len(lines) < step:
        yield f"{folder.metrics} lacks {step - len(lines)} of the first {step} steps: the curve of the report has gaps."
    for at, file in folder.checkpoints().items():
        if at < step and (fault := resuming.unreadable(file)):
            yield fault


def _other_type(config: TrainConfig, job: Job) -> list[str]:
    """A sentence where the processor does not compute in the type that was asked for."""
    return processor.notices(config.dtype, DTYPES[job.config.dtype])


def _unlike(before: TrainConfig, job: Job, start: int, other: list[str]) -> Iterator[str]:
    """Sentences on why a resumed run will not end as it would have ended."""
    if other and (job.base.device.type == "cpu" or job.config.deterministic):
        yield (
            f"The run began under other conditions ({'; '.join(other)}): it goes on, but the last digits of its "
            "weights will not be those of an uninterrupted run."
        )
    if job.config.steps != before.steps:
        yield f"The run now ends at step {job.config.steps}: from step {start} the learning rate follows that length."


def _changed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    before = config.model_dump(exclude_none=True)
    if changes.keys() & {"save_every_steps", "save_every_epochs"}:  # one takes the other's place
        before = {key: value for key, value in before.items() if not key.startswith("save_every_")}
    changed = TrainConfig.parse(before | changes, "the command line")
    free = identity.FREE_TO_CHANGE
    fixed = [key for key in changes if key not in free and getattr(changed, key) != getattr(config, key)]
    if fixed:
        allowed = ", ".join(sorted(free))
        raise MaquetteError(f"A resumed run cannot change {fixed[0]!r}, only {allowed}; start a new run for the rest.")
    return changed
