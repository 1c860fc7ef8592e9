"""What the API takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...config import Kind
from ..examine import Examined
from ..job import Job
from ..photos import Photo
from ..store import Project

Text = Annotated[str, Field(max_length=4_000)]
Word = Annotated[str, Field(max_length=80)]
Box = Annotated[list[Annotated[int, Field(ge=0, le=100_000)]], Field(min_length=4, max_length=4)]
PhotoIds = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=200)]
Preset = Literal["quick", "good", "best"]
FOLDERS = frozenset({"photos", "out", "run", "loras", "from_lora"})  # keys that name places of this computer


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewProject(Model):
    """A project to make."""

    name: Word
    kind: Kind = "object"
    subject: Word = ""
    """Class word or phrase, such as robot; otherwise that of the kind."""
    token: Word = "zkw"
    """The rare word that will call it up."""


class ProjectSettings(Model):
    """How a project is trained; null takes the usual again."""

    base: Annotated[str, Field(max_length=300)] | None = None
    preset: Preset | None = None
    prompts: Annotated[list[Annotated[str, Field(max_length=400)]], Field(max_length=8)] | None = None
    """Of the sample pictures."""
    changed: Annotated[dict[str, Any], Field(max_length=150)] | None = None
    """Keys of `maquette train` that differ from the preset, all of them."""


class ProjectChange(Model):
    """What changes; the rest stays."""

    name: Word | None = None
    kind: Kind | None = None
    subject: Word | None = None
    token: Word | None = None
    settings: ProjectSettings | None = None


class ProjectInfo(BaseModel):
    id: str
    name: str
    kind: Kind
    subject: str
    token: str
    phrase: str
    created: float
    photos: int
    used: int
    thumbnail: str | None
    """URL of a picture."""
    job: str | None
    """Id of the newest job."""
    state: str
    """Of the newest training; "draft" without one."""
    settings: dict[str, Any]

    @classmethod
    def of(cls, project: Project, jobs: list[Job]) -> ProjectInfo:
        """jobs: the project's, the newest first."""
        photos = project.photos()
        newest = next((job for job in jobs if job.spec["kind"] == "train"), None)
        return cls(
            id=project.id, name=project.name, kind=project.kind, subject=project.subject, token=project.token,
            phrase=project.phrase, created=project.created, photos=len(photos),
            used=sum(not photo.excluded for photo in photos), settings=project.settings,
            thumbnail=photo_url(project, photos[0]) if photos else None,
            job=newest.id if newest else None, state=newest.state if newest else "draft",
        )  # fmt: skip


class PhotoChange(Model):
    """What changes; the rest stays."""

    caption: Text | None = None
    excluded: bool | None = None
    crop: Box | None = None
    """x, y, width and height in pixels of the upright photo."""
    as_usual: bool = False
    """Cut it as training does by itself: forget the crop."""
    version: int | None = None
    """The version that the page shows; where the photo has another, the answer says that somebody else changed it."""


class ProblemInfo(BaseModel):
    kind: str
    short: str
    """What fits on a card."""
    message: str
    level: str
    """bad: it is not trained on or should not be; warn; info."""


class PhotoInfo(BaseModel):
    id: str
    name: str
    width: int
    height: int
    caption: str
    excluded: bool
    crop: list[int] | None
    frame: list[float] | None
    """What training sees of it: x, y, width, height in pixels of the upright photo."""
    mask: str | None
    problems: list[ProblemInfo]
    version: int
    thumbnail: str
    picture: str
    conflict: bool = False
    """Whether another page had changed it since the version that the request named."""

    @classmethod
    def of(cls, project: Project, photo: Photo, examined: Examined) -> PhotoInfo:
        url = photo_url(project, photo)
        frame = examined.frames.get(photo.id)
        return cls(
            id=photo.id, name=photo.original_name, width=photo.width, height=photo.height, caption=photo.caption,
            excluded=photo.excluded, crop=list(photo.crop) if photo.crop else None,
            frame=list(frame) if frame else None,
            mask=f"/api/projects/{project.id}/photos/{photo.id}/mask" if photo.mask else None,
            problems=[ProblemInfo(**vars(one)) for one in examined.findings.get(photo.id, [])],
            version=photo.version, thumbnail=url, picture=f"{url}?size=large",
        )  # fmt: skip


class Added(BaseModel):
    """What became of an upload."""

    added: list[PhotoInfo]
    captions: int
    skipped: list[dict[str, str]]
    """name and message of each file that was not used."""


class TagEdit(Model):
    """A change of the tags (parts between commas) of several captions."""

    action: Literal["add", "remove", "replace"]
    tag: Annotated[str, Field(min_length=1, max_length=200)]
    to: Annotated[str, Field(max_length=200)] = ""
    """With replace: what takes its place; also within tags."""
    photos: PhotoIds | None = None
    """Ids; otherwise all."""
    first: bool = False
    """With add: in front of the others."""


class Tag(BaseModel):
    tag: str
    count: int


class Undone(BaseModel):
    undone: str | None
    """What was taken back; null where there was nothing."""
    left: int


class NewJob(Model):
    """A training to queue, or another kind of work on a project."""

    kind: Literal["train", "caption"] = "train"
    preset: Preset | None = None
    """Otherwise the project's own."""
    settings: Annotated[dict[str, Any], Field(max_length=150)] | None = None
    """Keys of `maquette train` that differ from the preset, otherwise the project's own; of a caption job: overwrite,
    captioner."""


class JobInfo(BaseModel):
    id: str
    kind: str
    project: str
    title: str
    preset: str | None
    state: str
    place: int | None
    """Place in the queue, from 0; null for what does not wait."""
    message: str | None
    remedy: str | None
    """Which button helps: smaller, room, base, photos or resume."""
    what: str | None
    step: int
    steps: int
    percent: float
    loss: float | None
    remaining_seconds: float | None
    created: float
    began: float | None
    ended: float | None
    result: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def of(cls, job: Job, place: int | None = None) -> JobInfo:
        spec, status = job.spec, job.status()
        step, steps = status.get("step", 0), status.get("steps") or spec["config"].get("steps") or 0
        done, of = (step, steps) if steps else (status.get("done", 0), status.get("of", 0))
        percent = 100.0 if status["state"] == "finished" else 100.0 * done / of if of else 0.0
        return cls(
            id=job.id, kind=spec["kind"], project=spec["project"], title=spec.get("title", ""),
            preset=spec.get("preset"), state=job.state, place=place, message=status.get("message"),
            remedy=status.get("remedy"), what=status.get("what"), step=step, steps=steps, percent=round(percent, 1),
            loss=status.get("loss"), remaining_seconds=status.get("remaining_seconds"), created=spec["created"],
            began=status.get("began"), ended=status.get("ended"), result=status.get("result") or {},
            config=shown_config(spec["config"]),
        )  # fmt: skip


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A job's keys without the folders of this computer; the base by its name."""
    shown = {key: value for key, value in config.items() if key not in FOLDERS}
    return shown | ({"base": Path(str(config["base"])).name} if "base" in config else {})


class Place(Model):
    place: Annotated[int, Field(ge=0, le=1_000)]
    """Place in the queue, from 0."""


class More(Model):
    """How a training goes on."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """Steps in all, or with fresh of the new training."""
    fresh: bool = False
    """Begin a new training from its weights, with a fresh optimizer and schedule."""


class Choice(Model):
    """Another checkpoint than the recommended one; without step, the recommended one again."""

    step: Annotated[int, Field(ge=1, le=10**12)] | None = None
    weight: Annotated[float, Field(gt=0, le=4)] | None = None
    """Otherwise the recommended weight."""


class Mask(Model):
    """A mask of any size, white where the loss counts."""

    image: Annotated[str, Field(max_length=30_000_000)]
    """A PNG in base64, or as a data URL."""


class Plan(Model):
    """A training that might be."""

    preset: Preset | None = None
    """Otherwise the project's own."""
    settings: Annotated[dict[str, Any], Field(max_length=150)] | None = None
    """Changed keys; otherwise the project's own."""


class Cost(BaseModel):
    preset: str
    steps: int
    seconds: float | None
    memory_bytes: int | None
    measured: bool
    """By an earlier training here; else estimated, within a factor of three."""


class Line(BaseModel):
    key: str
    level: str
    text: str
    remedy: str = ""
    link: str = ""


class Check(BaseModel):
    ready: bool
    lines: list[Line]


class Texts(BaseModel):
    toml: str
    command: str
    kohya: str


class Merge(Model):
    """Several LoRAs made one."""

    jobs: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=2, max_length=4)]
    weights: Annotated[list[Annotated[float, Field(ge=-4, le=4)]], Field(min_length=2, max_length=4)]
    name: Word = ""
    rank: Annotated[int, Field(ge=1, le=1024)] | None = None


class SettingsChange(Model):
    """What may be changed while the studio runs."""

    api: bool | None = None
    base: Annotated[str, Field(max_length=200)] | None = None
    """One of those that /api/bases lists."""


class Done(BaseModel):
    """It was done."""

    done: bool = True


def photo_url(project: Project, photo: Photo) -> str:
    return f"/api/projects/{project.id}/photos/{photo.id}/picture"
