"""Photos of a project: upload, captions, crops, masks, tags."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from .. import uploads
from ..photos import LARGE, THUMB
from .common import ERRORS, send, studio_of
from .models import Added, Done, PhotoChange, PhotoInfo

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


@router.get("")
def list_photos(request: Request, project_id: str) -> list[PhotoInfo]:
    """The photos, in the order in which they came."""
    project = studio_of(request).store.project(project_id)
    return [PhotoInfo.of(project, photo) for photo in project.photos()]


@router.post("", openapi_extra=FILES)
async def add_photos(request: Request, project_id: str) -> Added:
    """Add photos (any field, any number), their text files, or zip archives of both. Each is decoded; what cannot be
    used is named in `skipped`.
    """
    studio = studio_of(request)
    project = await run_in_threadpool(studio.store.project, project_id)
    kind = request.headers.get("content-type", "")
    outcome = await uploads.take(project, kind, request.stream(), studio.folder / "incoming")
    infos = [PhotoInfo.of(project, photo) for photo in outcome.added]
    return Added(added=infos, captions=outcome.captions, skipped=outcome.skipped)


@router.get("/{photo_id}")
def get_photo(request: Request, project_id: str, photo_id: str) -> PhotoInfo:
    """One photo."""
    project = studio_of(request).store.project(project_id)
    return PhotoInfo.of(project, project.photo(photo_id))


@router.patch("/{photo_id}")
def change_photo(request: Request, project_id: str, photo_id: str, change: PhotoChange) -> PhotoInfo:
    """Change caption, crop or whether it is used. The last one to write wins, and is told of a conflict."""
    project = studio_of(request).store.project(project_id)
    with project.lock:
        photo = project.photo(photo_id)
        conflict = change.version is not None and change.version != photo.version
        if change.caption is not None:
            photo.set_caption(change.caption)
        if change.excluded is not None:
            photo.set_excluded(change.excluded)
        if change.crop is not None or change.as_usual:
            box = change.crop
            photo.set_crop(None if box is None else (box[0], box[1], box[2], box[3]))
        return PhotoInfo.of(project, photo).model_copy(update={"conflict": conflict})


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
