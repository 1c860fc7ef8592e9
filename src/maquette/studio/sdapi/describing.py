"""interrogate: a picture in words, by the captioners whose weights are there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from ...errors import MaquetteError
from ..facts import asked
from .answering import A1111Route, engine_of
from .uploads import picture_bytes

router = APIRouter(route_class=A1111Route, tags=["a1111"], prefix="/sdapi/v1")
CAPTIONERS = {"clip": "blip", "deepdanbooru": "wd14"}  # A1111's name of a model -> ours of its like


class Interrogation(BaseModel):
    """Body of interrogate."""

    image: str = ""
    model: str = "clip"


@router.post("/interrogate")
def interrogate(request: Request, body: Interrogation) -> dict[str, str]:
    """A sentence (clip) or tags (deepdanbooru), by a process of its own, which takes seconds to begin."""
    if not body.image.strip():
        raise HTTPException(404, "Image not found")
    captioner = CAPTIONERS.get(body.model)
    if captioner is None:
        raise HTTPException(404, f"Model not found; there are {', '.join(CAPTIONERS)}.")
    engine = engine_of(request)
    engine.require_free()
    data = picture_bytes(body.image)
    engine.temporary.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=engine.temporary, ignore_cleanup_errors=True) as folder:
        path = Path(folder, "picture.png")
        path.write_bytes(data)
        try:
            answer = asked({"ask": "caption", "captioner": captioner, "image": str(path)}, engine.fake)
        except MaquetteError as error:
            raise HTTPException(404, f"Model not found: {error}") from error
    return {"caption": str(answer["caption"])}
