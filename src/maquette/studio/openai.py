"""OpenAI's /v1/images/generations, for programs that speak that: pictures as b64_json."""

from __future__ import annotations

import base64
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from .sdapi.answering import A1111Route, Answer, engine_of, parts_of
from .sdapi.options import model_named
from .sdapi.requests import LARGEST_SIDE, MOST_STEPS, Text

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
MOST = 10


class OpenAIRoute(A1111Route):
    """A route whose errors are answered as OpenAI answers them: {"error": {message, type, param, code}}."""

    def failed(self, error: Exception) -> Response:
        status, name, message, headers = parts_of(error)
        status = 400 if status == 422 else status
        kind = "invalid_request_error" if status < 500 else "server_error"
        code = "model_not_found" if status == 404 else name.lower()
        content = {"message": message, "type": kind, "param": None, "code": code}
        return Answer({"error": content}, status, headers=headers)


router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


class Generation(BaseModel):
    """Body of a generation. seed, steps and negative_prompt are ours; other keys are let pass."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: Text
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MOST)] | None = 1
    size: str | None = "auto"
    response_format: str | None = None
    output_format: str | None = None
    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    negative_prompt: Text | None = None


@router.post("/v1/images/generations")
def generations(request: Request, body: Generation) -> Answer:
    """Pictures from words."""
    engine = engine_of(request)
    if body.response_format not in (None, "b64_json"):
        raise HTTPException(422, "response_format is b64_json: pictures are sent, not kept under an address.")
    if body.output_format not in (None, "png"):
        raise HTTPException(422, "output_format is png.")
    wish: dict[str, Any] = {"prompt": body.prompt, "batch_count": body.n or 1, **_size(body.size)}
    for key in ("seed", "steps", "negative_prompt"):
        if (value := getattr(body, key)) is not None:
            wish[key] = value
    if body.model:
        wish["base"] = model_named(engine, body.model).name
    pictures = engine.draw(wish).pictures
    data = [{"b64_json": base64.b64encode(picture.png).decode()} for picture in pictures]
    return Answer({"created": int(time.time()), "data": data})


@router.get("/v1/models")
def models(request: Request) -> dict[str, Any]:
    """Bases by the names that `model` takes."""
    names = [model.name for model in engine_of(request).library.models()]
    return {"object": "list", "data": [{"id": n, "object": "model", "created": 0, "owned_by": "local"} for n in names]}


def _size(text: str | None) -> dict[str, int]:
    """width and height; nothing for "auto", which is the base's own size. Raises HTTPException 422."""
    if text in (None, "", "auto"):
        return {}
    found = _SIZE.fullmatch(str(text))
    sides = [int(side) for side in found.groups()] if found else []
    if not sides or any(side % 8 or not 16 <= side <= LARGEST_SIDE for side in sides):
        raise HTTPException(422, f"size is WIDTHxHEIGHT, multiples of 8 up to {LARGEST_SIDE}, or auto.")
    return {"width": sides[0], "height": sides[1]}
