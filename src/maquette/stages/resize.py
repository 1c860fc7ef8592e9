"""`maquette resize`: a LoRA at another rank, exactly the best one of that rank."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import adapters
from ..config.weights import RankConfig, ResizeConfig
from ..core.dtypes import DTYPES
from ..core.lowrank import RankRule
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, progress, until
from ..weights import resize as algebra
from .writing_model import processors


@dataclass
class ResizeResult:
    """What was written. modules: name, ranks before and after, share of its energy kept."""

    path: str
    family: str
    kept: float
    size_before: int
    size_bytes: int
    modules: list[dict[str, Any]] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    """Modules of kinds that have no rank, written as they were."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def refuse_taken(out: Path, *sources: Path) -> None:
    """Raise MaquetteError where the result would overwrite something, above all what it is made from, and for a name
    that no LoRA has.
    """
    if any(out.absolute() == source.absolute() for source in sources):
        raise MaquetteError(f"{out} is what is read; choose another name with --out.")
    if out.exists():
        raise MaquetteError(f"{out} exists already; choose another name with --out.")
    adapters.require_name(out)


def rank_rules(config: RankConfig) -> tuple[RankRule, RankRule | None]:
    """For all layers, and for convolutions with a kernel. Raises MaquetteError for two rules at once."""
    dynamic = {key: getattr(config, key) for key in ("energy", "fro", "ratio", "cumulative")}
    try:
        usual = RankRule(config.rank, **dynamic)
    except ValueError as error:
        raise MaquetteError(f"{error}.") from error
    return usual, RankRule(config.conv_rank, **dynamic) if config.conv_rank else None


def run(config: ResizeConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> ResizeResult:
    """Resize. Raises MaquetteError naming the fault; nothing is written then."""
    on_event = until(cancel, on_event)
    rule, conv_rule = rank_rules(config)
    if rule.rank is None and not rule.dynamic and config.target_size is None:
        raise MaquetteError("say which rank: --rank 8, a rule (--energy 0.95, --ratio 10 …) or --target-size 20MB.")
    refuse_taken(config.out, config.lora)
    target = None if config.target_size is None else algebra.parse_size(config.target_size)
    adapter = adapters.load(config.lora)
    dtype = DTYPES[config.dtype] if config.dtype else None

    made = algebra.resize(adapter, rule, conv_rule, target, dtype, progress(on_event, "resizing"), processors())
    made.adapter.save(config.out, dtype=dtype)
    size = sum(f.stat().st_size for f in config.lora.rglob("*") if f.is_file()) if config.lora.is_dir() else None
    result = ResizeResult(
        str(config.out),
        adapter.family,
        made.kept,
        config.lora.stat().st_size if size is None else size,
        config.out.stat().st_size,
        [{"name": m.name, "before": m.before, "after": m.after, "kept": m.kept} for m in made.modules],
        made.untouched,
        list(adapter.notes),
    )
    grown = [module for module in made.modules if module.after < (config.rank or 0)]
    if grown and not rule.dynamic and target is None and config.rank:
        result.warnings.append(
            f"{len(grown)} of {len(made.modules)} modules have no more than rank {max(m.after for m in grown)}, which "
            "is kept whole: a larger rank would add only zeros."
        )
    if made.untouched:
        result.warnings.append(
            f"{len(made.untouched)} modules have no rank to change and stay as they are, for example "
            f"{made.untouched[0]}."
        )
    on_event(Event("saved", {"path": result.path}))
    for warning in result.warnings:
        on_event(Event("warning", {"message": warning}))
    return result
