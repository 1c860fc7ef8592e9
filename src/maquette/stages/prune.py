"""`maquette prune`: a LoRA without the blocks that do not matter."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .. import adapters, families
from ..config.weights import PruneConfig
from ..events import Cancel, Event, Listener, ignore, progress, until
from ..weights import prune as algebra
from .inspect_lora import trigger_words
from .resize import refuse_taken


@dataclass
class PruneResult:
    """What was written. blocks: each with its modules, bytes and effect alone, strongest first; effect: of everything
    that was dropped, together.
    """

    path: str
    family: str
    effect: float
    size_before: int
    size_bytes: int
    prompt: str
    dropped: list[str] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: PruneConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> PruneResult:
    """Measure and prune. Raises MaquetteError naming the fault; nothing is written then."""
    on_event = until(cancel, on_event)
    refuse_taken(config.out, config.lora)
    adapter = adapters.load(config.lora)
    base = families.load(config.base)
    prompt = config.prompt if config.prompt is not None else ", ".join(trigger_words(adapter.metadata))
    chosen = [name.strip() for name in (config.blocks or "").split(",") if name.strip()]

    made = algebra.prune(
        adapter, base, chosen, config.limit, prompt, config.seed, progress(on_event, "measuring blocks")
    )
    made.adapter.save(config.out)
    result = PruneResult(
        str(config.out),
        adapter.family,
        made.effect,
        sum(f.stat().st_size for f in config.lora.rglob("*")) if config.lora.is_dir() else config.lora.stat().st_size,
        config.out.stat().st_size,
        prompt,
        made.dropped,
        [{**asdict(one), "dropped": one.block in made.dropped} for one in made.effects],
    )
    if not made.dropped:
        weakest = made.effects[-1]
        result.warnings.append(
            f"no block could be left out within {100 * config.limit:g} %: the weakest, {weakest.block}, is worth "
            f"{100 * weakest.effect:.1f} %."
        )
    on_event(Event("saved", {"path": result.path}))
    for warning in result.warnings:
        on_event(Event("warning", {"message": warning}))
    return result
