"""`maquette evaluate`: which checkpoint of a run to keep and at which weight, and the page that shows why."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import adapters
from ..config import TrainConfig
from ..config.base import Kind
from ..config.photos import template_of
from ..config.runs import EvaluateConfig
from ..data.dataset import Dataset
from ..data.layouts import read_folder
from ..data.wording import Wording
from ..errors import MaquetteError
from ..evaluation import page_values
from ..evaluation.candidates import Candidate, find_candidates
from ..evaluation.folding import folded
from ..evaluation.panel import LARGE, QUICK, STANDARD
from ..evaluation.tuned import product_of
from ..evaluation.verdict import Verdict, judge
from ..events import Cancel, Event, Listener, ignore, progress_of_parts, until
from ..families.base import BaseModel
from ..families.loading import load
from ..methods import METHODS
from ..report import run_page
from ..run_folder import RunFolder
from ..training import holding_out
from ..training.checkpoint_writer import checkpoint_writer
from ..training.defaults import pick_device, pick_dtype, subject_of
from ..training.photos import read_photos
from ..training.promotion import promote, promote_file
from ..training.resuming import read_config
from ..training.verdicts import AROUND, examples, record, weights_for
from .evaluate_judges import open_judges

WORDS = {"model": "whole model", "embedding": "word"}


@dataclass
class EvaluateResult:
    """The choice, and where it lies."""

    run: str
    product: str  # what the file is, as `methods.METHODS` has it
    step: int
    weight: float
    file: str
    report: str
    reasons: list[str]
    overtrained: list[str]  # limits that even the chosen file passes
    held_out: list[str]
    hard_photos: list[str]
    noise: dict[str, Any] | None = None  # of equal files' scores, where it was measured
    encoders: list[dict[str, Any]] = field(default_factory=list)  # the DreamBooth paper's measures, by CLIP and DINO
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: EvaluateConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> EvaluateResult:
    """Measure, choose, put the chosen file where it is found, and write the page.

    Raises MaquetteError for a folder with one checkpoint or those of two runs, without photos, and for files that do
    not fit the base.
    """
    on_event = until(cancel, on_event)
    began = time.perf_counter()
    if (config.run / "run.toml").exists():
        result = _of_run(config, on_event)
    else:
        result = _of_folder(config, on_event)
    result.seconds = time.perf_counter() - began
    on_event(Event("done", result.to_json()))
    return result


def _of_run(config: EvaluateConfig, on_event: Listener) -> EvaluateResult:
    folder = RunFolder.open(config.run)
    if config.out is not None:
        raise MaquetteError(f"The verdict on a run stays in its folder, {config.run}: leave --out out.")
    with ExitStack() as held:
        held.enter_context(folder.locked())
        training = read_config(folder)
        if config.photos is not None:
            training = training.model_copy(update={"photos": config.photos})
        candidates = [Candidate(step, file) for step, file in folder.checkpoints().items()]
        _require_choice(folder.path, candidates)
        weights, twin = weights_for(training.method, config.weights), _twin(config.twin)
        _require_foldable(config, candidates, METHODS[training.method].product)
        base = open_base(config.base or training.base, config.device, training.vae, training.prediction_type)
        dataset = _photos_of(folder, training, base, on_event)
        subject = config.subject or subject_of(training, dataset)
        if subject is None:
            raise MaquetteError('Captions alone do not tell which word is the subject: name it (--subject "ohwx man").')
        photos, kind = examples(dataset, base), config.kind or training.kind
        encoders, faces = open_judges(config, base, photos, subject, kind)
        verdict = judge(
            base,
            candidates,
            photos,
            subject,
            kind=kind,
            **_extent(config, candidates, weights),
            prefer=config.prefer,
            seed=config.seed,
            seeds=config.seeds,
            twin=twin,
            clip_skip=training.clip_skip,
            cfg_scale=training.sample_cfg_scale,
            faces=faces,
            encoder=encoders.eye,
            on_progress=progress_of_parts(on_event),
        )
        verdict = _said_to_be_folded(verdict, config.fold_weight)
        found = encoders.table(candidates, verdict, photos, training.clip_skip, training.sample_cfg_scale)
        file = promote(checkpoint_writer(training, base, dataset), folder, verdict.choice, config.fold_weight)
        record(folder.path, verdict, config.fold_weight, found)
        page = run_page.write(folder, page_values.values(verdict, photos, found))
        on_event(Event("saved", {"path": str(file), "step": verdict.choice.step}))
    return _result(folder.path, METHODS[training.method].product, verdict, file, page, found)


def _photos_of(folder: RunFolder, training: TrainConfig, base: BaseModel, on_event: Listener) -> Dataset:
    """The run's photos in their roles of then, whatever has been added, changed or removed since."""
    recorded = folder.read_photos()
    config = holding_out.all_in(training) if recorded else training
    dataset, *_ = read_photos(config, base, progress_of_parts(on_event))
    if not recorded:
        return dataset
    dataset, told = holding_out.as_recorded(dataset, recorded)
    if told:
        on_event(Event("warning", {"message": told}))
    return dataset


def _named_photos(photos: Path, subject: str, kind: Kind | None) -> Dataset:
    """What files of another trainer were trained on, by the user's word."""
    style = Wording.for_subject(subject, kind).style
    return read_folder(photos, subject, template=template_of("style" if style else kind))


def _of_folder(config: EvaluateConfig, on_event: Listener) -> EvaluateResult:
    if not config.run.is_dir():
        raise MaquetteError(f"There is no folder {config.run}; name a run folder, or one with LoRA files.")
    candidates = find_candidates(config.run)
    if config.photos is None or config.subject is None or not config.subject.strip():
        raise MaquetteError(
            f"{config.run} is no run folder of maquette, so name what was trained on: "
            f"maquette evaluate {shlex.quote(str(config.run))} "
            '--photos PHOTOS --subject "ohwx man" --base BASE'
        )
    out = config.out or RunFolder.free_path("runs", f"{config.run.resolve().name}-evaluation")
    if out.exists() and any(out.iterdir()):
        raise MaquetteError(f"{out} is not empty; choose another --out.")
    product, twin = product_of(candidates[0].file, config.subject), _twin(config.twin)
    _require_foldable(config, candidates, product)
    base = open_base(config.base or "pocket", config.device, None)
    photos = examples(_named_photos(config.photos, config.subject, config.kind), base)
    encoders, faces = open_judges(config, base, photos, config.subject, config.kind)
    verdict = judge(
        base,
        candidates,
        photos,
        config.subject,
        kind=config.kind,
        **_extent(config, candidates, config.weights if product == "adapter" else [1.0]),
        prefer=config.prefer,
        seed=config.seed,
        seeds=config.seeds,
        twin=twin,
        faces=faces,
        encoder=encoders.eye,
        on_progress=progress_of_parts(on_event),
    )
    verdict = _said_to_be_folded(verdict, config.fold_weight)
    found = encoders.table(candidates, verdict, photos)
    out.mkdir(parents=True, exist_ok=True)
    chosen = next(candidate for candidate in candidates if candidate.step == verdict.choice.step)
    file = promote_file(chosen.file, out, verdict.choice, config.fold_weight, base, config.subject, len(photos))
    record(out, verdict, config.fold_weight, found)
    page = run_page.write_verdict(
        out,
        page_values.values(verdict, photos, found),
        file,
        config.subject,
        config.base or "pocket",
        product,
    )
    on_event(Event("saved", {"path": str(file), "step": verdict.choice.step}))
    return _result(out, product, verdict, file, page, found)


def _twin(path: Path | None) -> list[Candidate]:
    if path is None:
        return []
    if not path.is_dir():
        raise MaquetteError(f"There is no folder {path}; name the twin's run folder, or one with its LoRA files.")
    if (path / "run.toml").exists():
        return [Candidate(step, file) for step, file in RunFolder.open(path).checkpoints().items()]
    return find_candidates(path)


def _said_to_be_folded(verdict: Verdict, fold: bool) -> Verdict:
    if not fold or verdict.choice.weight == 1.0:
        return verdict
    told = f"The weight {verdict.choice.weight:g} is folded into the file: use it at 1."
    return replace(verdict, reasons=(*verdict.reasons, told))


def _require_foldable(config: EvaluateConfig, candidates: Sequence[Candidate], product: str) -> None:
    """Raise MaquetteError, before anything is measured, for a weight that is to be folded in and cannot be."""
    if not config.fold_weight:
        return
    if product != "adapter":
        raise MaquetteError(f"A {WORDS[product]} has no weight: leave --fold-weight out.")
    folded(adapters.load(candidates[-1].file), 0.5)


def _require_choice(path: Path, candidates: Sequence[Candidate]) -> None:
    if not candidates:
        raise MaquetteError(f"{path} has no checkpoints yet.")
    if len(candidates) == 1:
        raise MaquetteError(
            f"{path} has one checkpoint: there is nothing to choose between. Save more during training (--set "
            "save_every_steps=50)."
        )


def open_base(base: str, device: str, vae: str | None, prediction_type: str = "auto") -> BaseModel:
    """A base to judge with: float32 on a CPU."""
    where = pick_device(device)
    dtype = pick_dtype("auto", where, "lora") if where.type == "cuda" else torch.float32
    return load(base, device=where, dtype=dtype, vae=vae, prediction_type=prediction_type)


def _extent(config: EvaluateConfig, candidates: Sequence[Candidate], weights: Sequence[float]) -> dict[str, Any]:
    if config.thorough:
        return {"size": LARGE, "cells": None, "weights": weights}
    if config.quick:
        return {"size": QUICK, "cells": len(candidates), "weights": weights}
    return {"size": STANDARD, "cells": len(candidates) + AROUND, "weights": weights}


def _result(
    path: Path, product: str, verdict: Verdict, file: Path, page: Path, encoders: list[dict[str, Any]]
) -> EvaluateResult:
    values = verdict.to_json()
    return EvaluateResult(
        run=str(path),
        product=product,
        step=verdict.choice.step,
        weight=verdict.choice.weight,
        file=str(file),
        report=str(page),
        reasons=values["reasons"],
        overtrained=values["overtrained"],
        held_out=values["held_out"],
        hard_photos=[photo.name for photo in verdict.hard],
        noise=values["noise"],
        encoders=encoders,
        rows=values["rows"],
    )
