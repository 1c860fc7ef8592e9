"""The drawing process: it alone imports torch, and holds a Pipeline open from picture to picture."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..events import Event, Listener
from ..openmp import wait_asleep
from .drawing_child import OnPicture, png, run

if TYPE_CHECKING:
    from ..sampling.pipeline import Drawn

MOST_CELLS = 64  # of a grid in the browser


class PipelineArtist:
    """A Pipeline that draws by wishes of the studio."""

    def __init__(self, opening: Mapping[str, Any]) -> None:
        from ..sampling.pipeline import Pipeline

        self.pipeline = Pipeline(**opening)

    def facts(self) -> dict[str, Any]:
        base = self.pipeline.base
        return {"hash": base.content_hash, "native": base.spec.native_size}

    def draw(
        self,
        settings: dict[str, Any],
        loras: Mapping[str, str],
        on_picture: OnPicture,
        on_event: Listener,
        interrupt: threading.Event,
    ) -> None:
        from ..sampling.draw_settings import DrawSettings

        self.pipeline.loras = {name: Path(path) for name, path in loras.items()}
        for notice in self.pipeline.notices:
            on_event(Event("warning", {"message": notice}))
        if any(settings.get(axis) for axis in "xyz"):
            return self._draw_grid(settings, loras, on_picture, on_event, interrupt)
        wish = DrawSettings.parse(settings, "the request")
        self.pipeline.draw(wish, lambda drawn: on_picture(drawn.image, _facts(drawn)), on_event, interrupt=interrupt)

    def _draw_grid(
        self,
        settings: dict[str, Any],
        loras: Mapping[str, str],
        on_picture: OnPicture,
        on_event: Listener,
        interrupt: threading.Event,
    ) -> None:
        """All cells as one labelled picture, whose text is that of the first. Interrupted, there is none."""
        from ..prompts import parse_networks
        from ..report.grid_page import Shown, picture
        from ..sampling.grid.plan import plan_of
        from ..sampling.grid.settings import GridConfig

        first = next((tag.positional[0] for tag in parse_networks(settings["prompt"])[1] if tag.positional), "")
        folder = {"lora_dir": Path(loras[first]).parent} if first in loras else {}  # where its checkpoints lie
        plan = plan_of(GridConfig.parse({**settings, **folder}, "the grid"))
        if len(plan.cells) > MOST_CELLS:
            raise MaquetteError(f"This grid would have {len(plan.cells)} pictures; {MOST_CELLS} is the most here.")
        if any(cell.settings.base != plan.cells[0].settings.base for cell in plan.cells):
            raise MaquetteError("A grid here has one base; `maquette grid` has an axis of bases.")
        drawn: dict[tuple[int, int, int], Drawn] = {}
        for done, cell in enumerate(plan.in_order(), 1):
            found: list[Drawn] = []
            self.pipeline.draw(cell.settings, found.append, _without_progress(on_event), interrupt=interrupt)
            if interrupt.is_set():
                return
            drawn[cell.place] = found[0]
            on_event(Event("progress", {"what": "drawing", "done": done, "of": len(plan.cells)}))
        cells = [drawn[cell.place] for cell in plan.cells]
        files = [png(each.image, _facts(each)) for each in cells]
        texts = [each.infotext for each in cells]
        shown = Shown(plan.labels(0), plan.labels(1), plan.labels(2), files, texts, "", "")
        on_picture(picture(shown), _facts(cells[0]))

    def close(self) -> None:
        self.pipeline.close()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _facts(drawn: Drawn) -> dict[str, Any]:
    facts = {"seed": drawn.seed, "infotext": drawn.infotext, "variation": drawn.values.get("Variation seed")}
    return {**facts, "prompt": drawn.prompt, "negative_prompt": drawn.negative_prompt}


def _without_progress(on_event: Listener) -> Listener:
    """Of a cell: what is told of it, but for its own steps."""
    return lambda event: None if event.kind == "progress" else on_event(event)


if __name__ == "__main__":
    wait_asleep()
    run(PipelineArtist)
