"""What clients send to txt2img and img2img, by A1111's names. Other keys are let pass, as there."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MOST_STEPS = 150
LARGEST_SIDE = 2048
MOST_PICTURES = 16


def _dict(value: Any) -> Any:
    return {} if value is None else value


def _list(value: Any) -> Any:
    return [] if value is None else value


def _unicode(text: str) -> str:
    """Halves of characters, which JSON can hold, can be written nowhere."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half of a character")
    return text


Text = Annotated[str, AfterValidator(_unicode)]
AnyDict = Annotated[dict[str, Any], BeforeValidator(_dict)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Side = Annotated[int, Field(ge=16, le=LARGEST_SIDE, multiple_of=8)]
Seed = Annotated[int, Field(ge=-1, lt=2**63)]
Unit = Annotated[float, Field(ge=0, le=1)]


class Common(BaseModel):
    """Keys of both. None stands for a key that is not there."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: Text | None = ""
    negative_prompt: Text | None = ""
    styles: Any = None
    seed: Seed | None = -1
    subseed: Seed | None = -1
    subseed_strength: Unit | None = 0.0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_PICTURES)] | None = 1
    n_iter: Annotated[int, Field(ge=1, le=MOST_PICTURES)] | None = 1
    steps: Steps | None = 20
    cfg_scale: Annotated[float, Field(ge=1, le=100)] | None = None
    width: Side | None = None
    height: Side | None = None
    restore_faces: Any = None
    tiling: Any = None
    clip_skip: Annotated[int, Field(ge=0, le=12)] | None = None
    eta: Unit | None = None
    s_churn: Annotated[float, Field(ge=0, le=100)] | None = None
    s_tmax: Annotated[float, Field(ge=0)] | None = None
    s_tmin: Annotated[float, Field(ge=0)] | None = None
    s_noise: Annotated[float, Field(ge=0, le=10)] | None = None
    override_settings: AnyDict = Field(default_factory=dict)
    override_settings_restore_afterwards: bool | None = True
    script_name: str | None = None
    script_args: Any = None
    alwayson_scripts: AnyDict = Field(default_factory=dict)
    send_images: bool | None = True
    save_images: bool | None = False
    denoising_strength: Unit | None = None


class TextToImage(Common):
    """Body of txt2img."""

    enable_hr: bool | None = False
    hr_scale: Annotated[float, Field(gt=0, le=4)] | None = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: Annotated[int, Field(ge=0, le=MOST_STEPS)] | None = 0
    hr_resize_x: Annotated[int, Field(ge=0, le=LARGEST_SIDE)] | None = 0
    hr_resize_y: Annotated[int, Field(ge=0, le=LARGEST_SIDE)] | None = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Text | None = ""
    hr_negative_prompt: Text | None = ""


class ImageToImage(Common):
    """Body of img2img."""

    init_images: Annotated[list[str], BeforeValidator(_list)] = Field(default_factory=list)
    resize_mode: Annotated[int, Field(ge=0, le=3)] | None = 0
    mask: str | None = None
    mask_blur: Annotated[float, Field(ge=0, le=64)] | None = None
    mask_blur_x: Annotated[float, Field(ge=0, le=64)] | None = None
    inpainting_fill: Annotated[int, Field(ge=0, le=3)] | None = 0
    inpaint_full_res: bool | None = True
    inpaint_full_res_padding: Annotated[int, Field(ge=0, le=1024)] | None = 0
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1)] | None = 0
    image_cfg_scale: float | None = None
    initial_noise_multiplier: float | None = None
    include_init_images: bool | None = False
