"""The drawing process: it alone imports torch, and holds a Pipeline open from picture to picture."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import Event, Listener
from ..openmp import wait_asleep
from .drawing_child import OnPicture, run

if TYPE_CHECKING:
    from ..sampling.pipeline import Drawn


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

        wish = DrawSettings.parse(settings, "the request")
        self.pipeline.loras = {name: Path(path) for name, path in loras.items()}
        for notice in self.pipeline.notices:
            on_event(Event("warning", {"message": notice}))

        def hand_over(drawn: Drawn) -> None:
            told = {"seed": drawn.seed, "infotext": drawn.infotext, "variation": drawn.values.get("Variation seed")}
            on_picture(drawn.image, {**told, "prompt": drawn.prompt, "negative_prompt": drawn.negative_prompt})

        self.pipeline.draw(wish, hand_over, on_event, interrupt=interrupt)

    def close(self) -> None:
        self.pipeline.close()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    wait_asleep()
    run(PipelineArtist)
