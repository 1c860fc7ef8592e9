"""Photos of a project: upload, captions, crops, masks, tags."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from ...errors import MaquetteError
from .. import captions, masks, uploads
from ..core import Studio, studio_of
from ..photos import LARGE, THUMB, Photo
from ..store import Project
from .common import ERRORS, send
from .models import Added, Done, Mask, PhotoChange, PhotoInfo

router = APIRouter(prefix="/projects/{project_id}/photos", tags=["photos"], responses=dict(ERRORS))
FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


def described(studio: Studio, project: Project, photo: Photo) -> PhotoInfo:
    return PhotoInfo.of(project, photo, project.examined(studio.known_facts(project)))


@router.get("")
def list_photos(request: Request, project_id: str) -> list[PhotoInfo]:
    """The photos, in the order in which they came."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    examined = project.examined(studio.known_facts(project))
    return [PhotoInfo.of(project, photo, examined) for photo in project.photos()]


@router.post("", openapi_extra=FILES)
async def add_photos(request: Request, project_id: str) -> Added:
    """Add photos (any field, any number), their text files, or zip archives of both. Each is decoded; what cannot be
    used is named in `skipped`.
    """
    studio = studio_of(request)
    project = await run_in_threadpool(studio.store.project, project_id)
    kind = request.headers.get("content-type", "")
    outcome = await uploads.take(project, kind, request.stream(), studio.folder / "incoming")
    infos = [await run_in_threadpool(described, studio, project, photo) for photo in outcome.added]
    return Added(added=infos, captions=outcome.captions, skipped=outcome.skipped)


@router.get("/{photo_id}")
def get_photo(request: Request, project_id: str, photo_id: str) -> PhotoInfo:
    """One photo."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    return described(studio, project, project.photo(photo_id))


@router.patch("/{photo_id}")
def change_photo(request: Request, project_id: str, photo_id: str, change: PhotoChange) -> PhotoInfo:
    """Change caption, crop or whether it is used. The last one to write wins, and is told of a conflict."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    with project.lock:
        photo = project.photo(photo_id)
        conflict = change.version is not None and change.version != photo.version
        wanted = change.model_dump(include={"caption", "excluded", "crop"}, exclude_none=True)
        wanted |= {"crop": None} if change.as_usual else {}
        was = {"caption": photo.caption, "excluded": photo.excluded, "crop": photo.crop}
        captions.restore(photo, wanted)
        if kept := {key: was[key] for key in wanted if key != "caption"}:
            captions.remember(project, "change of a photo", {photo.id: kept})
        return described(studio, project, photo).model_copy(update={"conflict": conflict})


@router.delete("/{photo_id}")
def remove_photo(request: Request, project_id: str, photo_id: str) -> Done:
    """Remove a photo with its caption and mask from the project; the user's own file is not touched."""
    studio_of(request).store.project(project_id).remove_photo(photo_id)
    return Done()


@router.get("/{photo_id}/picture", response_class=FileResponse)
def get_picture(
    request: Request, project_id: str, photo_id: str, size: Annotated[Literal["thumb", "large"], Query()] = "thumb"
) -> FileResponse:
    """The photo for the page: WebP, upright, without EXIF."""
    studio = studio_of(request)
    photo = studio.store.project(project_id).photo(photo_id)
    return send(photo.picture(THUMB if size == "thumb" else LARGE), studio.folder, "image/webp", keep=True)


@router.put("/{photo_id}/mask")
def put_mask(request: Request, project_id: str, photo_id: str, mask: Mask) -> PhotoInfo:
    """Keep a mask: the loss counts where it is white. One that is white everywhere removes it."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    try:
        data = base64.b64decode(mask.image.partition("base64,")[2] or mask.image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MaquetteError("The mask is no base64.") from error
    with project.lock:
        masks.keep(project.photo(photo_id), data)
    return described(studio, project, project.photo(photo_id))


@router.get("/{photo_id}/mask", response_class=FileResponse)
def get_mask(request: Request, project_id: str, photo_id: str) -> FileResponse:
    """The mask, a grey PNG of the photo's size."""
    studio = studio_of(request)
    photo = studio.store.project(project_id).photo(photo_id)
    return send(photo.mask_file, studio.folder, "image/png")


@router.delete("/{photo_id}/mask")
def remove_mask(request: Request, project_id: str, photo_id: str) -> PhotoInfo:
    """Without a mask the loss counts everywhere."""
    studio = studio_of(request)
    project = studio.store.project(project_id)
    with project.lock:
        masks.remove(project.photo(photo_id))
    return described(studio, project, project.photo(photo_id))
