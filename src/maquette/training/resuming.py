"""Where a run goes on: from its newest whole state, from its finished file, or not at all, and never in silence.

Nothing here writes into the run folder but the proof that a finished run left its state behind on purpose.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import methods
from ..config import TrainConfig
from ..data.dataset import manifest
from ..errors import MaquetteError
from ..files import write_json
from ..formats import safetensors
from ..parsing import read_object
from ..run_folder import RunFolder
from . import identity, state
from .job import Job

FINISHED = "finished.json"  # in state/: what a run without a state was, so that longer training can begin from its file
LAST_KEY = "timestamps"  # of run.toml; a file without it has been cut


@dataclass(frozen=True)
class Start:
    """The step after which a run goes on, and from what. `notes`: sentences for the user."""

    step: int
    state: Path | None  # folder of the state
    file: Path | None = None  # the finished file, where there is no state any more
    notes: list[str] = field(default_factory=list)


def read_config(folder: RunFolder) -> TrainConfig:
    """The configuration of an earlier run. Raises MaquetteError when run.toml is damaged or cut."""
    text = folder.config.read_bytes()
    if not text.strip(b"\0 \r\n\t"):
        raise MaquetteError(f"{folder.config} is empty. Nothing was changed; put it back, or start a new run.")
    try:
        config = TrainConfig.read(folder.config)
    except MaquetteError as error:
        raise MaquetteError(f"The run cannot be resumed, its run.toml is damaged: {error}") from error
    if LAST_KEY not in config.model_fields_set or not config.steps or not config.batch_size or not config.learning_rate:
        raise MaquetteError(
            f"{folder.config} has been cut short: it lacks keys that every run writes. Nothing was changed; put it "
            "back, or start a new run."
        )
    return config


def find_start(folder: RunFolder, config: TrainConfig, steps: int) -> Start:
    """Where to go on, up to `steps` steps in all. config: the run's, as run.toml has it.

    Raises MaquetteError when no whole state is left of a run that had saved one, or it belongs to another run.
    """
    found, faults = state.survey(folder)
    if found is not None:
        step, place = found
        if other := identity.other_settings(state.manifest_run(place), config):
            raise MaquetteError(
                f"{place} was not written under the settings of {folder.config} (other: {', '.join(sorted(other))}): "
                "one of the two is of another run. Nothing was changed; put it back, or start a new run."
            )
        if step > steps:
            raise MaquetteError(f"{folder.path} is at step {step} already, beyond {steps} steps; give more --steps.")
        notes = [f"{fault}: the run goes on from the state of step {step}." for fault in faults.values()]
        return Start(step, place, notes=notes)
    if (finished := _finished(folder, config)) is not None:
        newer = [fault for at, fault in faults.items() if at > finished[0]]  # older ones were being removed
        return _from_file(folder, *finished, steps, newer)
    saved = folder.saved_steps()
    last = max((line["step"] for line in folder.read_metrics()), default=0)
    if saved or folder.final.exists() or last > (config.save_every_steps or last):
        raise MaquetteError(_lost(folder, config, list(faults.values())))
    return Start(0, None, notes=["No step had been saved yet: the run starts again at step 1."])


def _lost(folder: RunFolder, config: TrainConfig, faults: list[str]) -> str:
    """The sentences of a run that cannot go on."""
    why = f" ({'; '.join(faults)})" if faults else ""
    sentence = f"No whole state is left in {folder.path}{why}, so the run cannot go on. Nothing was changed."
    files = [*folder.checkpoints().values(), *([folder.final] if folder.final.exists() else [])]
    if not files or not can_begin(config):
        return f"{sentence} Put the folder state back from a copy, or start a new run."
    file = files[-1]
    return (
        f"{sentence} Put the folder state back from a copy, or begin a new run from its last file: "
        f"maquette train --config {folder.config} --set from_lora={file} --out ANOTHER"
    )


def can_begin(config: TrainConfig) -> bool:
    """Whether longer training can begin from the finished file alone: it can from a LoRA of any kind."""
    method = methods.METHODS[config.method]
    return method.product == "adapter" and not method.embedding


def drop_state(folder: RunFolder, job: Job, step: int) -> None:
    """Remove the states of a finished run, unless they are to be kept or longer training needs them."""
    if job.config.keep_state or not can_begin(job.config):
        return
    run = identity.of_run(job.config, job.dataset, job.base)
    last = folder.checkpoint(step)  # the run's own file may be an earlier one, at another weight
    proof = {
        "version": state.VERSION,
        "step": step,
        "file": last.name,
        "sha256": safetensors.file_sha256(last),
        "run": run,
    }
    write_json(folder.path / "state" / FINISHED, proof)
    for place in folder.states().values():
        shutil.rmtree(place)


def has_dropped_state(folder: RunFolder) -> bool:
    """Whether the run has finished so that its state was no longer needed."""
    return (folder.path / "state" / FINISHED).is_file()


def _finished(folder: RunFolder, config: TrainConfig) -> tuple[int, Path] | None:
    """Step and last checkpoint with which the run finished and left its state behind, or None. The file must be as it
    was then; its name is that of the folder at that time.
    """
    proof = folder.path / "state" / FINISHED
    if not proof.exists():
        return None
    proven = read_object(proof, state.LARGEST_MANIFEST)
    step, run, name = proven.get("step"), proven.get("run"), proven.get("file")
    if (
        not isinstance(step, int)
        or not 0 < step < 1 << 60
        or step is True
        or not isinstance(run, dict)
        or not isinstance(name, str)
        or not name.endswith(".safetensors")
        or Path(name).name != name
        or proven.get("version") != state.VERSION
    ):
        raise MaquetteError(f"{proof} is damaged. Nothing was changed; put it back, or start a new run.")
    file = folder.path / "checkpoints" / name
    if not file.exists() and (folder.path / name).exists():  # of a run from before checkpoints were chosen
        file = folder.path / name
    if file.is_symlink() or not file.is_file() or safetensors.file_sha256(file) != proven.get("sha256"):
        fault = "is not as the run wrote it" if file.exists() else "is missing"
        raise MaquetteError(
            f"{file} {fault}, and the run kept no state when it finished, so it cannot go on. Nothing was "
            "changed; put it back, or start a new run."
        )
    if other := identity.other_settings(run, config):
        raise MaquetteError(
            f"{proof} was not written under the settings of {folder.config} (other: {', '.join(sorted(other))}). "
            "Nothing was changed; put it back, or start a new run."
        )
    return step, file


def _from_file(folder: RunFolder, step: int, file: Path, steps: int, faults: list[str]) -> Start:
    if steps <= step:
        raise MaquetteError(
            f"{folder.path} has finished ({step} steps), and no whole state is left: there is nothing to go on with. "
            f"Train longer with: maquette train --resume {folder.path} --steps {2 * step}"
        )
    note = (
        f"The run had finished and kept no state: from step {step} on it is trained from {file}, whose weights are "
        "rounded, with a fresh optimizer. keep_state = true would have kept what is needed to go on exactly."
    )
    return Start(step, None, file, [*(f"{fault}." for fault in faults), note])


def refuse_other_contents(folder: RunFolder, start: Start, job: Job) -> Iterator[str]:
    """Raise MaquetteError unless photos and base are those that the run began with. Yields what was damaged and is
    proven by the state, so that it can be written anew.
    """
    run: dict[str, object] = {}
    if start.state is not None:
        run = state.manifest_run(start.state)
    elif start.file is not None:
        run = read_object(folder.path / "state" / FINISHED, state.LARGEST_MANIFEST)["run"]
    other = identity.other_contents(run, job.dataset, job.base)
    for key in ("base", "vae"):
        if key in other:
            name = job.base.source if key == "base" else job.base.vae_source or "the base's own VAE"
            raise MaquetteError(
                f"The {key} is not the one that {folder.path} began with ({name} has other contents); put it back, or "
                "start a new run."
            )
    now = manifest(job.dataset)["photos"]
    try:
        before = read_object(folder.dataset).get("photos")
        if not isinstance(before, list) or not all(isinstance(photo, dict) for photo in before):
            raise MaquetteError(f"{folder.dataset} is damaged: it lists no photos.")
    except MaquetteError as error:
        if "photos" not in run or "photos" in other:
            raise MaquetteError(
                f"{error} Whether the photos are those of the run cannot be told; put it back, or start a new run."
            ) from error
        yield f"{error} The photos are those of the state; it is written anew."
        return
    old, new = identity.photo_facts(before), identity.photo_facts(now)
    if old != new or "photos" in other:
        name = next(iter(sorted(set(old) ^ set(new))), ("",))[0]
        where = f" ({name})" if name else ""
        raise MaquetteError(
            f"The photos have changed since {folder.path} began{where}; put them back, or start a new run."
        )


def unreadable(file: Path) -> str | None:
    """A sentence on a checkpoint that is no whole file any more; None for one that is."""
    try:
        safetensors.read_header(file)
    except MaquetteError as error:
        return f"An earlier checkpoint cannot be used: {error}"
    return None
