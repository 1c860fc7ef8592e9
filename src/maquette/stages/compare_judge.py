"""The measuring of `maquette compare`: a panel for each base, every training's files on it, each kept when done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.compare import CompareConfig
from ..config.runs import WEIGHTS
from ..errors import MaquetteError
from ..evaluation import comparing
from ..evaluation.candidates import Candidate
from ..evaluation.choice import Row, faults
from ..evaluation.panel import LARGE, SMALL, Panel, build_panel
from ..evaluation.rule import Rule
from ..evaluation.validated import require_measurable
from ..events import Event, Listener
from ..families.base import BaseModel
from ..files import slug, write_json
from ..formats.png import write_png
from ..parsing import read_object
from ..run_folder import RunFolder
from ..sampling.images import to_image
from ..training.photos import read_photos
from ..training.variants import Variant
from ..training.verdicts import examples, weights_for
from .evaluate import open_base

MORE = 4  # cells beside those of every checkpoint at one weight
TEXT_CHANNELS = 4


@dataclass(frozen=True)
class Measured:
    """A training on a base: its chosen row, the limits it passes, and its pictures."""

    row: Row
    overtrained: list[str]
    pictures: list[Path]
    prompts: list[str]


def measure_all(
    config: CompareConfig, chosen: Sequence[Variant], out: Path, on_event: Listener
) -> dict[tuple[str, str], Measured]:
    """By (training, base it is used on). A file is chosen on its own base; on another it is measured as it is."""
    bases = list(dict.fromkeys(variant.config.base for variant in chosen))
    found: dict[tuple[str, str], Measured] = {}
    for own in (True, False):
        for used in bases:
            wanted = [v for v in chosen if (v.config.base == used) == own]
            missing = [v for v in wanted if not _place(out, v, used).exists()]
            room = Room(config, chosen, used, on_event) if missing else None
            for variant in wanted:
                if room is not None and variant in missing:
                    home = None if own else found[variant.name, variant.config.base].row
                    room.measure(variant, home, _place(out, variant, used))
                found[variant.name, used] = _read(_place(out, variant, used))
    return found


class Room:
    """An opened base with its panel."""

    def __init__(self, config: CompareConfig, chosen: Sequence[Variant], used: str, on_event: Listener) -> None:
        self.config, self.used, self.on_event = config, used, on_event
        training = chosen[0].config
        vaes = {variant.config.vae for variant in chosen}
        vae = training.vae if len(vaes) == 1 else None  # of several, which are compared, the base's own judges
        self.base: BaseModel = open_base(used, config.device, vae, training.prediction_type)
        require_measurable(self.base)
        if self.base.input_channels != TEXT_CHANNELS:
            raise MaquetteError(
                f"{used} is an inpainting model, and compare draws from text alone: compare ordinary bases."
            )
        dataset, *_ = read_photos(training, self.base, lambda what, done, of: None)
        on_event(Event("progress", {"what": "building the panel", "done": 0, "of": 1}))
        self.panel: Panel = build_panel(
            self.base, examples(dataset, self.base), config.subject, kind=training.kind,
            size=LARGE if config.thorough else SMALL, seed=config.seed, clip_skip=training.clip_skip,
            cfg_scale=training.sample_cfg_scale,
        )  # fmt: skip

    def measure(self, variant: Variant, home: Row | None, place: Path) -> None:
        """Choose among a training's checkpoints (home None), or measure the one that was chosen on its own base."""
        assert variant.config.out is not None
        files = RunFolder(variant.config.out).checkpoints()
        done = 0

        def on_measured() -> None:
            nonlocal done
            done += 1
            self.on_event(
                Event("progress", {"what": f"measuring {variant.name}", "done": done, "of": len(files) + MORE})
            )

        if home is None:
            weights = weights_for(variant.config.method, WEIGHTS)
            cells = None if self.config.thorough else len(files) + (MORE if len(weights) > 1 else 0)
            found = comparing.judged(
                self.base, self.panel, [Candidate(*one) for one in files.items()], weights, cells, on_measured
            )
            row, drawn = found.choice.row, found.drawn
        else:
            candidate = Candidate(home.step, files[home.step])
            row, drawn = comparing.at(self.base, self.panel, candidate, home.weight)
        pictures = self._pictures(drawn, place)
        names = [str(path.relative_to(place.parent)) for path in pictures]
        items = {name: list(values) for name, values in row.items.items()}
        prompts = list(self.panel.plan.subject_prompts)
        write_json(place, {**_record(row, self.panel.rule), "items": items, "pictures": names, "prompts": prompts})

    @torch.no_grad()
    def _pictures(self, drawn: Tensor, place: Path) -> list[Path]:
        found = []
        for i, latent in enumerate(drawn):
            path = place.with_suffix("") / f"{i}.png"
            write_png(to_image(self.base.decode(latent[None])[0].float().cpu()), path)
            found.append(path)
        return found


def _record(row: Row, rule: Rule) -> dict[str, Any]:
    wrong = [fault.measure for fault in faults(row.values, rule)]
    return {"step": row.step, "weight": row.weight, "overtrained": wrong}


def _place(out: Path, variant: Variant, used: str) -> Path:
    """Where a measurement is kept; written last, so that what is there is whole."""
    return out / "measured" / (f"{variant.name}.json" if used == variant.config.base else _elsewhere(variant, used))


def _elsewhere(variant: Variant, used: str) -> str:
    return f"{variant.name}-on-{slug(Path(used).stem)}.json"


def _read(place: Path) -> Measured:
    record = read_object(place)
    try:
        row = Row.of(record["step"], record["weight"], record["items"])
        pictures = [place.parent / name for name in record["pictures"]]
        return Measured(row, list(record["overtrained"]), pictures, list(record["prompts"]))
    except (KeyError, TypeError) as error:
        raise MaquetteError(f"{place} is damaged; remove it, and it is measured again.") from error
