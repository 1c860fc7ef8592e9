"""The configurations of `maquette extract`, `resize`, `prune`, `merge`, `convert` and `inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Count, Fraction, Precision, StageConfig


class RankConfig(StageConfig):
    """How the rank of each layer is found."""

    group: ClassVar[str] = "Rank"

    rank: Count | None = None
    """The rank, or with one of the other rules the largest that a layer gets."""
    conv_rank: Count | None = None
    """The same for convolutions with a kernel."""
    energy: Fraction | None = None
    """Keep this share of each change's energy, the sum of its squared singular values."""
    fro: Fraction | None = None
    """Keep this share of each change's Frobenius norm (sv_fro of kohya's resize_lora)."""
    ratio: Annotated[float, Field(ge=1)] | None = None
    """Keep singular values down to the largest divided by this (sv_ratio)."""
    cumulative: Fraction | None = None
    """Keep this share of the sum of each change's singular values (sv_cumulative)."""


class ResizeConfig(RankConfig):
    """What `maquette resize` does."""

    lora: Path
    """LoRA file of any program."""
    out: Path
    """File to write; it must not exist yet."""
    target_size: str | None = None
    """Largest size of the file, like 20MB: the ranks that keep most energy in it."""
    dtype: Precision | None = None
    """Precision of the result; otherwise that of the LoRA (fp16 where that has 8 bits)."""


class ExtractConfig(RankConfig):
    """What `maquette extract` does."""

    renamed: ClassVar[Mapping[str, str]] = {"factor": "lokr_factor"}
    tuned: Path
    """The trained model: a file, a diffusers folder or "pocket"."""
    base: Path
    """The model it was trained from."""
    out: Path
    """File to write; it must not exist yet."""
    method: Literal["lora", "locon", "lokr"] = "lora"
    """lora (linear layers and 1x1 convolutions), locon (all convolutions too) or lokr (a Kronecker product)."""
    dora: bool = False
    """Keep the magnitudes of the weights apart (DoRA), exactly, and the rank for their directions."""
    dora_axis: Literal["input", "output"] = "input"
    """A magnitude for each input, as A1111 reads it, or for each output, as diffusers and PEFT do."""
    lokr_factor: Annotated[int, Field(ge=2)] = 8
    """Side of LoKr's smaller matrix."""
    text_encoder: bool = True
    """The text encoders too."""
    clamp_quantile: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Limit the numbers of each layer's factors to this quantile of them, as sd-scripts does at 0.99; 1 limits none."""
    min_difference: Annotated[float, Field(ge=0)] = 0.0
    """Leave out layers in which no number differs by more than this."""
    dtype: Precision | None = None
    """Precision of the result; otherwise that of the tuned model's UNet (fp16 where that has 8 bits)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.dora:
            self.refuse_without_effect(["dora_axis"], "without dora")
        if self.method == "lora":
            self.refuse_without_effect(["conv_rank"], "on the method lora, which leaves convolutions alone")
        other = "clamp_quantile" if self.method == "lokr" else "lokr_factor"
        self.refuse_without_effect([other], f"on the method {self.method}")
        return self


class PruneConfig(StageConfig):
    """What `maquette prune` does."""

    lora: Path
    """LoRA file of any program."""
    base: str
    """The model on whose predictions the effect is measured: "pocket", a file or a diffusers folder."""
    out: Path
    """File to write; it must not exist yet."""
    blocks: str | None = None
    """Blocks to leave out, like IN01,OUT11 (BASE: the text encoders); otherwise the weakest, up to `limit`."""
    limit: Fraction = 0.05
    """How much of what the LoRA changes of the predictions may be lost."""
    prompt: str | None = None
    """What is predicted for; otherwise the LoRA's trigger words."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise that predictions begin with."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.blocks is not None:
            self.refuse_without_effect(["limit"], "beside blocks, which are left out whatever they are worth")
        return self


class WritingConfig(StageConfig):
    """How a new model is calculated and written."""

    group: ClassVar[str] = "Writing"

    out: Path
    """File (.safetensors, .ckpt) or diffusers folder to write; it must not exist yet."""
    dtype: Precision | None = None
    """Precision of the result; otherwise that of the first model, tensor by tensor."""
    half_vae: bool = True
    """Cast the VAE too; no keeps its precision."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """Precision of the arithmetic."""
    threads: Count | None = None
    """How many tensors are computed at a time; otherwise as many as processors."""


class MergeConfig(WritingConfig):
    """What `maquette merge` does."""

    base: Path | None = None
    """Model file, diffusers folder or "pocket"; with to = "lora" it is needed only by kinds like DoRA."""
    loras: list[str] = Field(min_length=1)
    """LoRAs and their strength: FILE, FILE:0.8, FILE:0.8,te=0.5, FILE:0.8,unet=1,lbw=OUTALL."""
    to: Literal["checkpoint", "lora"] = "checkpoint"
    """checkpoint: the base with the LoRAs in it. lora: one LoRA instead of several."""
    rank: Count | None = None
    """With to = "lora": the rank of the result; otherwise it is exact, with the ranks added up."""
    block_presets: Path | None = None
    """File of block weight presets of your own, NAME:1,0,… on each line."""
    lossy: bool = False
    """Merge what fits when a LoRA also changes layers that the base has not."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.to == "lora":
            self.refuse_without_effect(["half_vae", "precision", "threads", "lossy"], "on a LoRA made of several")
        return self


class ConvertConfig(StageConfig):
    """What `maquette convert` reads and writes."""

    source: Path
    """Model file, diffusers folder, adapter file, or "pocket"."""
    to: Literal["single-file", "diffusers-dir", "kohya", "diffusers", "peft", "comfyui", "onetrainer", "attn-procs"]
    """single-file or diffusers-dir for models; kohya, diffusers, peft (a folder), comfyui, onetrainer or attn-procs
    (diffusers of 2023) for adapters."""
    out: Path
    """File or folder to write; it must not exist yet."""
    dtype: Precision | None = None
    """Precision of the result; otherwise that of the source."""
    half_vae: bool = True
    """Cast the VAE too; no keeps its precision."""
    ema: bool = False
    """Use the averaged weights that a training checkpoint holds beside the others."""
    unet: Path | None = None
    """A UNet-only file or folder, or another model, whose UNet takes the place of the source's."""
    vae: Path | None = None
    """A VAE-only file or folder, or another model, whose VAE takes the place of the source's."""
    prediction_type: Literal["epsilon", "v_prediction", "flow"] | None = None
    """What the model predicts, where its own statement is wrong."""
    lossy: bool = False
    """Write what the target cannot carry as the LoRA nearest to it, and leave out what is no matrix."""
    rank: Count | None = None
    """Rank of these LoRAs."""
    base: Path | None = None
    """The model the adapter is for, where its change follows from the model's weights (DoRA, OFT …)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.to in ("single-file", "diffusers-dir"):
            self.refuse_without_effect(["lossy", "rank", "base"], f"on models, of which {self.to} is a layout")
        else:
            models = ["half_vae", "ema", "unet", "vae", "prediction_type"]
            self.refuse_without_effect(models, f"on adapters, of which {self.to} is a layout")
            if self.to == "kohya":
                self.refuse_without_effect(["lossy"], "on kohya, which carries every kind")
            if not self.lossy:
                self.refuse_without_effect(["rank", "base"], "without lossy")
        return self


class InspectConfig(StageConfig):
    """What `maquette inspect` looks at."""

    path: Path
    """File or diffusers folder."""
    hashes: bool = True
    """Compute hashes and look for damaged numbers, which reads the whole file."""
    compare: Path | None = None
    """Another model or LoRA: what differs, block by block."""
    picture: Path | None = None
    """PNG file for the comparison as bars; it must not exist yet."""
