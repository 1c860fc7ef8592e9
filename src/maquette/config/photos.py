"""The configurations of `maquette check`, `caption` and `regularize`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from .base import Count, DenoisingSteps, Prediction, StageConfig

TEMPLATE = "a photo of {subject}"  # of captions
STYLE_TEMPLATE = "a picture, {subject}"


def template_of(kind: str | None) -> str:
    """What makes the captions of photos that have none, for a kind of subject."""
    return STYLE_TEMPLATE if kind == "style" else TEMPLATE


class CheckConfig(StageConfig):
    """What to check, and for which training."""

    photos: Path
    """Folder of photos: plain, or with Kohya's `40_ohwx man` folders."""
    subject: str | None = None
    """The rare word and the class, "ohwx man": makes the captions of photos that have none."""
    base: str = "pocket"
    """Base model to train on: "pocket", a .safetensors file, a diffusers folder or hf:owner/name."""
    prediction_type: Prediction = "auto"
    """What the base predicts: epsilon, v_prediction or flow; auto believes what its file says."""
    vae: str | None = None
    """A VAE-only file or folder to use instead of the base's own."""
    reg: Path | None = None
    """Folder of regularization images."""
    repeats: Count | None = None
    """How often each photo counts in an epoch; otherwise 1 or what a Kohya folder's name says."""
    resolution: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels of a side of the square whose area every photo is scaled to; otherwise the base's native size."""
    buckets: bool | None = None
    """Keep each photo's shape, cut to the nearest bucket; else cut squares. Default: no on pocket, yes elsewhere."""
    no_upscale: bool = False
    """With buckets: never enlarge a photo; one too small for its bucket is trained in a smaller one."""
    batch_size: Count | None = None
    """Photos per training step; otherwise what train would take."""
    steps: Count | None = None
    """Training steps; otherwise what train would take."""
    epochs: Count | None = None
    """Instead of steps: how often all photos times repeats are seen."""
    alpha_mask: bool = False
    """The loss will count only where photos are not transparent."""
    faces: bool = False
    """Look for faces too: photos without one, with several, of another person, or with one that is too small."""
    max_token_length: Literal[75, 150, 225] = 225
    """So many tokens of a caption will be learned."""
    rank: Count = 16
    """Rank of the LoRA, for the size of the file."""
    out: Path = Path("runs")
    """Where runs will be written, to see whether there is room."""

    @model_validator(mode="after")
    def _agree(self) -> CheckConfig:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self


class CaptionConfig(StageConfig):
    """Which captions to write, and what to change in those that are there."""

    photos: Path
    """Folder of photos: plain, or with Kohya's `40_ohwx man` folders."""
    subject: str | None = None
    """The rare word and the class, "ohwx man"; a Kohya folder's name says it too."""
    captioner: str = "template"
    """template, blip, wd14, or the folder of an image-to-text model of transformers."""
    model: Path | None = None
    """Where the captioner's weights are, when not in models/ under the captioner's name."""
    template: str = TEMPLATE
    """What the captioner "template" writes."""
    overwrite: bool = False
    """Also write captions that exist; the old ones are kept as .bak files."""
    replace: list[str] = Field(default_factory=list)
    """Replace whole words in every caption: old=new."""
    remove: list[str] = Field(default_factory=list)
    """Remove this tag from every caption; several have commas between them."""
    add: list[str] = Field(default_factory=list)
    """Add this tag to every caption that lacks it; several have commas between them."""
    prefix: str = ""
    """Put this before every caption that does not begin with it."""
    suffix: str = ""
    """Put this behind every caption that does not end with it."""
    dry_run: bool = False
    """Only show what would be written."""
    shuffle: int = Field(default=0, ge=0, le=32)
    """Only show so many orders of each caption's tags, as training with shuffle_captions draws them."""
    keep_tokens: int = Field(default=0, ge=0)
    """With shuffle: so many tags at the beginning stay where they are."""

    @model_validator(mode="after")
    def _preview(self) -> CaptionConfig:
        if self.keep_tokens and not self.shuffle:
            raise ValueError("keep_tokens is for shuffle; give both")
        return self


class RegularizeConfig(StageConfig):
    """How many pictures of what."""

    out: Path
    """Folder for the pictures, each with its prompt as its caption."""
    base: str = "pocket"
    """Base model that draws them: the one that will be trained."""
    prediction_type: Prediction = "auto"
    """What the base predicts: epsilon, v_prediction or flow; auto believes what its file says."""
    vae: str | None = None
    """A VAE-only file or folder to use instead of the base's own."""
    photos: Path | None = None
    """Folder of photos that the pictures are for: gives their number, images x repeats, and the class."""
    prompt: list[str] = Field(default_factory=list)
    """Prompts, shared out evenly; otherwise "a photo of a CLASS", of a style ("zkw style") what the captions name."""
    count: Count | None = None
    """How many pictures the folder shall hold; otherwise one per sample of `photos`."""
    subject: str | None = None
    """The rare word and the class, "ohwx man", where the folder of photos does not name it."""
    repeats: Count | None = None
    """How often each photo will count in an epoch, as given to train."""
    negative_prompt: str = ""
    """What to keep away from."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the first picture, of the next plus one and so on."""
    steps: DenoisingSteps = 20
    """Denoising steps."""
    cfg_scale: float | None = Field(default=None, ge=1)
    """How strongly the prompt is followed; otherwise 4 on pocket, 7 elsewhere."""
    sampler: str = "DDIM"
    """Sampler by A1111's name, "DPM++ 2M" or with its schedule "DPM++ 2M Karras"."""
    width: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels; otherwise the base's native size."""
    height: int | None = Field(default=None, ge=16, multiple_of=8)
    """Pixels; otherwise the base's native size."""
    batch_size: Count = 8
    """Pictures drawn at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.count is None and self.photos is None:
            raise ValueError("give count, or the photos that the pictures are for")
        if not self.prompt and self.photos is None and self.subject is None:
            raise ValueError("give a prompt, the subject, or the photos that the pictures are for")
        return self
