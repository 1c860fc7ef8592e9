"""What to draw, and how: the options of `maquette generate` and of a Pipeline, by A1111's names where it has them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from ..config import Count, DenoisingSteps, Fraction, Prediction, StageConfig
from ..prompts.attention import Emphasis
from ..prompts.schedule import Counting
from ..shown import is_unicode
from .control_unit import ControlUnit
from .pictures.fitting import ResizeMode
from .pictures.outpainting import read_sides
from .pictures.repainting import Content
from .settings import SamplerSettings

if TYPE_CHECKING:
    from .loop import SamplingOptions

AUTOMATIC = "Automatic"
SEEDS = 2**63

Side = Annotated[int, Field(ge=16, le=16384, multiple_of=8)]
_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*")


class PromptSettings(StageConfig):
    """The words."""

    group: ClassVar[str] = "Prompt"

    prompt: str
    """What to draw, in A1111's prompt language; <lora:NAME:0.8> applies a LoRA."""
    negative_prompt: str = ""
    """What to keep away from."""
    styles: list[str] = Field(default_factory=list)
    """Styles by name, whose words are put around the prompts."""
    styles_file: Path | None = None
    """A1111's file of styles; otherwise styles.csv."""
    dynamic_prompts: bool = False
    """Choose of {a|b} and __name__ at random, by each picture's seed, as Dynamic Prompts does."""
    wildcard_dir: Path | None = None
    """Folder of text files whose lines __name__ chooses from; turns dynamic_prompts on."""
    lora_dir: Path | None = None
    """Folder whose LoRA files can be named in the prompt, with all its subfolders; otherwise runs."""
    lenient: bool = False
    """Draw without a LoRA that is not there, with a warning, as A1111 does."""
    activation: bool = False
    """Add the words that a LoRA's NAME.json asks for, and take its weight where the tag has none."""
    block_weights: Path | None = None
    """File of block weights by name (NAME:1,0,…), for <lora:…:lbw=NAME>."""
    embedding_dir: Path | None = None
    """Folder of textual inversion files, each called in the prompt by its name; otherwise `embeddings`, if there."""
    prompt_comments: bool = True
    """Leave out what stands behind # in a line of a prompt, as A1111 does; false keeps it as words."""
    prompt_editing: Counting = "A1111"
    """When [from:to:when] switches: "A1111" draws its pictures (one call of the denoiser late; image to image and
    samplers of two calls count their own calls), "exact" switches after that step of all."""
    clip_skip: Count = 1
    """Which text encoder layer is used, counted from the end: 2 for bases trained so."""
    emphasis: Emphasis = "Original"
    """What weights in brackets do: "Original", "No norm", "Ignore" or "None" (brackets are plain text)."""


class SamplingSettings(SamplerSettings):
    """Steps, noise and sizes."""

    group: ClassVar[str] = "Sampling"

    steps: DenoisingSteps = 20
    """Denoising steps."""
    cfg_scale: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """How strongly the prompt is followed; otherwise 4 on pocket, 7 elsewhere."""
    sampler: str = "DDIM"
    """Sampler by A1111's name, such as "DPM++ 2M"; the older "DPM++ 2M Karras" names its schedule as well."""
    schedule_type: str = AUTOMATIC
    """Noise levels of the steps, by A1111's name: Automatic (what suits the sampler), Karras, Exponential, Beta …"""
    seed: int = Field(default=-1, ge=-1, lt=SEEDS)
    """Seed of the first picture, of the next plus one and so on; -1 draws one."""
    width: Side | None = None
    """Pixels; otherwise the base's native size, and with init_image and extend the larger picture's."""
    height: Side | None = None
    """Pixels; otherwise as for the width."""
    batch_size: Count = 1
    """Pictures drawn at once."""
    batch_count: Count = 1
    """Batches."""
    exact_batch: bool = True
    """On a CPU compute the pictures of a batch one after the other, so that each equals to the bit the picture drawn
    alone; no: at once, which rounds otherwise and is quicker for very small pictures."""
    variation_seed: int = Field(default=-1, ge=-1, lt=SEEDS)
    """Seed whose noise is mixed in; -1 draws one."""
    variation_strength: Fraction = 0.0
    """How much of the variation seed's noise: 0 none, 1 nothing else."""
    seed_resize_from: str | None = None
    """WIDTHxHEIGHT: keep the composition that the seed gives at this size."""

    @field_validator("seed_resize_from")
    @classmethod
    def _is_a_size(cls, text: str | None) -> str | None:
        if text is None:
            return None
        match = _SIZE.fullmatch(text)
        if match is None or int(match[1]) * int(match[2]) == 0:
            raise ValueError("write a size such as 512x512")
        return f"{int(match[1])}x{int(match[2])}"


class ImageSettings(StageConfig):
    """Pictures to begin from, and what of them is drawn anew."""

    group: ClassVar[str] = "Image to image and ControlNet"

    init_image: Path | None = None
    """Begin from this picture instead of from noise, or from each picture of a folder."""
    denoising_strength: Fraction | None = None
    """With init_image and hires fix: 0 leaves the picture, 1 leaves nothing of it; otherwise 0.75."""
    exact_steps: bool = False
    """Image to image does as many steps as asked for, whatever the denoising strength."""
    resize_mode: ResizeMode = "crop"
    """How the picture is brought to the size: just (stretched), crop, fill (borders drawn out), latent (stretched
    as latent)."""
    mask: str | None = None
    """Draw only a part anew: a picture that is white there, or "transparency" for what is transparent in init_image."""
    mask_blur: float = Field(default=4.0, ge=0, le=64)
    """Pixels over which the new part and the old one go over into each other."""
    mask_invert: bool = False
    """Draw anew where the mask is black."""
    masked_content: Content = "original"
    """What drawing begins from under the mask: fill (colours around), original, latent noise, latent nothing."""
    only_masked: bool = False
    """Draw the masked part alone, at the whole size, and scale it back."""
    mask_padding: int = Field(default=32, ge=0, le=1024)
    """With only_masked: pixels around the part that are drawn with it."""
    extend: list[str] = Field(default_factory=list)
    """Draw beyond the picture's borders: left=64, top=32 …, in pixels."""
    controls: list[ControlUnit] = Field(default_factory=list)
    """ControlNets: model, image, preprocessor, weight, start, end, mode, resize."""

    @field_validator("controls", mode="before")
    @classmethod
    def _written_units(cls, units: Any) -> Any:
        units = [units] if isinstance(units, str) else units or []
        return [ControlUnit.of_text(unit) if isinstance(unit, str) else unit for unit in units]


class HiresSettings(StageConfig):
    """A second drawing at a larger size, which begins from the first ("Hires fix")."""

    group: ClassVar[str] = "Hires fix"

    hires_scale: float | None = Field(default=None, gt=0, le=8)
    """Draw again, so many times as large."""
    hires_width: Side | None = None
    """Instead of a scale: pixels; alone it keeps the shape, with a height the rest is cut."""
    hires_height: Side | None = None
    """Likewise."""
    hires_upscaler: str = "Latent"
    """How the first drawing is enlarged: Latent, Latent (bicubic) …, Lanczos, Nearest, or an ESRGAN's file."""
    hires_base: str | None = None
    """Base model of the second drawing: a file or folder; otherwise the first's."""
    hires_steps: DenoisingSteps | None = None
    """Steps of the second drawing; otherwise as many as of the first."""
    hires_sampler: str | None = None
    """Sampler of the second drawing; otherwise the first's."""
    hires_schedule_type: str | None = None
    """Schedule of the second drawing; otherwise the first's."""
    hires_cfg_scale: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """How strongly the second drawing follows its prompt; otherwise as the first."""
    hires_prompt: str | None = None
    """Prompt of the second drawing, with its own LoRAs; otherwise the first's."""
    hires_negative_prompt: str | None = None
    """Negative prompt of the second drawing."""

    @property
    def hires(self) -> bool:
        """Whether there is a second drawing."""
        return bool(self.hires_scale or self.hires_width or self.hires_height)


class RefinerSettings(StageConfig):
    """Another model for the last steps."""

    refiner: str | None = None
    """SDXL's refiner, a file or folder, which draws the last steps (with hires fix, of the second drawing)."""
    refiner_switch_at: Fraction = 0.8
    """Share of the noise schedule after which the refiner takes over."""


class DrawSettings(RefinerSettings, HiresSettings, ImageSettings, SamplingSettings, PromptSettings):
    """All of a drawing but the base and the files."""

    group: ClassVar[str] = "Base and files"

    preview_every: int = Field(default=0, ge=0)
    """Send a rough picture of the drawing after every so many steps; 0 sends none."""
    tiled_vae: bool = False
    """Decode and encode large pictures in overlapping parts, which needs little memory."""

    _as_given: dict[str, Any] = PrivateAttr(default_factory=dict)  # the samplers' names, before schedules are in them

    def given(self) -> dict[str, Any]:
        """Keys and values as they were given, for other values of some of them."""
        return self.model_dump(exclude_unset=True, exclude={"sampler", "hires_sampler"}) | self._as_given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        from .effects import without_effect
        from .enlarging import find_upscaler
        from .samplers import find_sampler

        for key in ("prompt", "negative_prompt", "hires_prompt", "hires_negative_prompt"):
            if not is_unicode(getattr(self, key) or ""):
                raise ValueError(f"{key} holds half of a character, which no file can: write it in UTF-8")
        named = {"sampler", "hires_sampler"} & self.model_fields_set
        self._as_given = {key: getattr(self, key) for key in named}
        self.sampler = find_sampler(self.sampler, self.schedule_type)
        if self.hires_sampler or self.hires_schedule_type:
            self.hires_sampler = self._second_sampler()
        self.hires_upscaler = find_upscaler(self.hires_upscaler)
        read_sides(self.extend)
        if self.init_image is None:
            for key in ("mask", "extend", "only_masked", "mask_invert"):
                if getattr(self, key):
                    raise ValueError(f"{key} needs a picture to begin from: give init_image")
        elif self.hires:
            raise ValueError("hires fix enlarges a new picture; with init_image give the size and a denoising strength")
        elif not self.mask and not self.extend and (self.only_masked or self.mask_invert):
            raise ValueError("only_masked and mask_invert need a mask")
        if self.hires_base and not self.hires:
            raise ValueError("hires_base is the model of a second drawing: give hires_scale or a hires size")
        if self.hires_scale and (self.hires_width or self.hires_height):
            raise ValueError("give hires_scale, or hires_width and hires_height, not both")
        counted, pictures = "variation_seed" if self.variation_strength else "seed", self.batch_size * self.batch_count
        if getattr(self, counted) + pictures > SEEDS:
            raise ValueError(f"{counted} grows by one from picture to picture, beyond 2^63 - 1: give a smaller one")
        if self.whole and (sentence := without_effect(self)):
            raise ValueError(sentence)
        return self

    @property
    def whole(self) -> bool:
        """Whether nothing will be added before drawing, so that an option without effect is a mistake."""
        return True

    def _second_sampler(self) -> str:
        """Of the second drawing, with the first's schedule where it has none of its own."""
        from .samplers import find_sampler, named_schedule, schedule_of

        name = self.hires_sampler or schedule_of(self.sampler)[0]
        schedule = self.hires_schedule_type or named_schedule(find_sampler(name)) or named_schedule(self.sampler)
        return find_sampler(name, schedule or AUTOMATIC)

    def sampler_and_steps(self, again: bool = False) -> tuple[str, int]:
        """Of the first drawing, or of the second."""
        if again:
            return self.hires_sampler or self.sampler, self.hires_steps or self.steps
        return self.sampler, self.steps

    @property
    def strength(self) -> float:
        """The denoising strength; A1111's default where none is given."""
        return 0.75 if self.denoising_strength is None else self.denoising_strength

    def batch_options(self, factor: int, variation_seed: int = 0, exact_steps: bool | None = None) -> SamplingOptions:
        """Of a batch whose first picture has that variation seed. factor: pixels per latent cell. exact_steps: instead
        of the settings' own.
        """
        resize = None
        if self.seed_resize_from:
            width, height = (int(side) // factor for side in self.seed_resize_from.split("x"))
            resize = (max(1, width), max(1, height))
        options = self.sampling_options()
        noise = replace(options.noise, variation_seed=variation_seed, variation_strength=self.variation_strength)
        noise = replace(noise, resize_from=resize)
        exact_steps = self.exact_steps if exact_steps is None else exact_steps
        return replace(options, noise=noise, exact_steps=exact_steps, one_by_one=self.exact_batch)


class BaseSettings(StageConfig):
    """Which base is opened, and how."""

    group: ClassVar[str] = "Base and files"

    base: str = "pocket"
    """Base model: "pocket", a .safetensors file or a diffusers folder."""
    prediction_type: Prediction = "auto"
    """What the base predicts: epsilon, v_prediction or flow; auto believes what its file says."""
    vae: str | None = None
    """A VAE-only file or folder to use instead of the base's own."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic; auto is fp32 on a CPU and fp16 on CUDA."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    def opening(self) -> dict[str, Any]:
        """What a Pipeline is made with, besides the base."""
        return {key: getattr(self, key) for key in ("vae", "prediction_type", "dtype", "device")}


class GenerateConfig(BaseSettings, DrawSettings):
    """What to draw, how, with which base, and where the pictures go."""

    group: ClassVar[str] = "Base and files"

    prompt: str = ""
    """What to draw, in A1111's prompt language; <lora:NAME:0.8> applies a LoRA."""
    prompts_file: Path | None = None
    """Draw every line of this file, with A1111's options per line (--prompt "…" --steps 30), instead of the prompt."""
    out: Path = Path("out")
    """Folder of the pictures."""
    comfy: Path | None = None
    """Also write a ComfyUI workflow (API format) that makes the like picture."""
    file_name: str = "[number]-[seed]"
    """Names of the pictures' files, by A1111's fields: [seed], [prompt_words], [sampler], [date] …"""
    image_format: Literal["png", "jpg", "webp", "avif"] = "png"
    """Format of the pictures; the text is in each."""
    quality: int = Field(default=80, ge=1, le=100)
    """Of jpg, webp and avif; webp of 100 is lossless."""

    @model_validator(mode="after")
    def _has_quality(self) -> Self:
        if self.image_format == "png" and self.quality != type(self).model_fields["quality"].default:
            raise ValueError("quality is of jpg, webp and avif, a PNG loses nothing: give image_format too")
        return self
