"""`maquette extract`: a LoRA out of the difference of two models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ..config.weights import ExtractConfig
from ..core.dtypes import DTYPES
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, progress, until
from ..fast import memory
from ..weights import extract as algebra
from ..weights import stream
from .resize import rank_rules, refuse_taken
from .writing_model import processors


@dataclass
class ExtractResult:
    """What was written. kept: share of the energy of the adapted layers' difference that the LoRA holds; kept_of_all:
    of every difference of UNet and text encoders. layers: name, rank, energy, error and kept of each. left_out: what
    such a LoRA does not hold, with its share of all energy.
    """

    path: str
    family: str
    method: str
    kept: float
    kept_of_all: float
    size_bytes: int
    layers: list[dict[str, Any]] = field(default_factory=list)
    unchanged: int = 0
    left_out: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: ExtractConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> ExtractResult:
    """Extract. Raises MaquetteError naming the fault; nothing is written then."""
    on_event = until(cancel, on_event)
    rule, conv_rule = rank_rules(config)
    if rule.rank is None and not rule.dynamic and config.method != "lokr":
        raise MaquetteError("say which rank: --rank 32, or a rule (--energy 0.9, --ratio 10 …).")
    if rule.dynamic and config.method == "lokr":
        raise MaquetteError("a LoKr's rank follows no rule; give --rank, or nothing for two whole factors.")
    refuse_taken(config.out, config.tuned, config.base)
    tuned, base = stream.open_model(config.tuned), stream.open_model(config.base)
    own = next(iter(tuned.parts["unet"].values())).dtype
    dtype = DTYPES[config.dtype] if config.dtype else torch.float16 if own.itemsize == 1 else own
    axis = {"input": 1, "output": 0}[config.dora_axis] if config.dora else None
    plan = algebra.Plan(
        rule, conv_rule, config.method, axis, config.lokr_factor, config.text_encoder, config.clamp_quantile,
        config.min_difference, dtype,
    )  # fmt: skip

    memory.keep()
    try:
        made = algebra.extract(tuned, base, plan, progress(on_event, "extracting"), processors())
    finally:
        memory.keep_no_longer()
    made.adapter.save(config.out, metadata={"ss_output_name": config.out.stem, "modelspec.title": config.out.stem})
    result = ExtractResult(
        str(config.out), base.spec.name, made.adapter.method, made.kept, made.kept_of_all, config.out.stat().st_size
    )
    result.layers = [{**asdict(layer), "kept": layer.kept} for layer in made.layers]
    result.unchanged = len(made.unchanged)
    whole = sum(layer.energy for layer in made.layers) + sum(made.left_out.values())
    result.left_out = {kind: energy / whole for kind, energy in made.left_out.items()}
    result.warnings = _warnings(made, result, config)
    on_event(Event("saved", {"path": result.path}))
    for warning in result.warnings:
        on_event(Event("warning", {"message": warning}))
    return result


def _warnings(made: algebra.Extraction, result: ExtractResult, config: ExtractConfig) -> list[str]:
    found = []
    outside = sum(result.left_out.values())
    if outside > 0.05:
        most = max(result.left_out, key=lambda kind: result.left_out[kind])
        remedy = "; --method locon holds the convolutions too" if most == "convolutions" else ""
        share = f"{100 * outside:.0f} % of the difference"
        found.append(f"{share} lies where a {config.method} has no place, most of it in {most}{remedy}.")
    if made.kept < 0.5:
        remedy = "--method lora keeps more" if config.method == "lokr" else "a larger --rank keeps more"
        found.append(
            f"only {100 * made.kept:.0f} % of the difference is kept: the models differ in more than so small a file "
            f"holds; {remedy}."
        )
    return found
