"""`maquette prune`: a LoRA without the blocks that do not matter."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from .. import adapters, families
from ..config import Fraction, StageConfig
from ..events import Event, Listener, ignore
from ..weights import prune as algebra
from .inspect_lora import trigger_words
from .resize import refuse_taken


class PruneConfig(StageConfig):
    """What `maquette prune` does."""

    lora: Path
    """LoRA file of any program."""
    base: str
    """The model on whose predictions the effect is measured: "pocket", a file or a diffusers folder."""
    out: Path
    """File to write; it must not exist yet."""
    blocks: str | None = None
    """Blocks to leave out, like IN01,OUT11 (BASE: the text encoders); otherwise the weakest, up to `limit`."""
    limit: Fraction = 0.05
    """How much of what the LoRA changes of the predictions may be lost."""
    prompt: str | None = None
    """What is predicted for; otherwise the LoRA's trigger words."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise that predictions begin with."""


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


def run(config: PruneConfig, on_event: Listener = ignore) -> PruneResult:
    """Measure and prune. Raises MaquetteError naming the fault; nothing is written then."""
    refuse_taken(config.out, config.lora)
    adapter = adapters.load(config.lora)
    base = families.load(config.base)
    prompt = config.prompt if config.prompt is not None else ", ".join(trigger_words(adapter.metadata))
    chosen = [name.strip() for name in (config.blocks or "").split(",") if name.strip()]

    def told(done: int, of: int) -> None:
        on_event(Event("progress", {"what": "measuring blocks", "done": done, "of": of}))

    made = algebra.prune(adapter, base, chosen, config.limit, prompt, config.seed, told)
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
