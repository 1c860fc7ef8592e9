"""A1111's HTTP interface, so that programs that speak it draw with maquette's bases and LoRAs.

Written from the interface's field names and from what clients send; docs/a1111-api.md lists what is served.
"""

from __future__ import annotations

from fastapi import APIRouter

from . import control, describing, drawing, lists, options, others, pictures, styles

router = APIRouter()
for part in (drawing, lists, options, styles, pictures, describing, control, others):
    router.include_router(part.router)
