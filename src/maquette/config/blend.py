"""The configuration of `maquette blend`, and of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Fraction, StageConfig
from .weights import WritingConfig

Share = Annotated[float, Field(ge=-10, le=10)]


ModeName = Literal[
    "weighted-sum", "add-difference", "triple-sum", "sum-twice", "train-difference", "smooth-add", "cosine-a",
    "cosine-b", "slerp", "ties", "dare", "della", "geometric", "median", "clamp",
]  # fmt: skip


_MODES_WITH = {"density": ("ties", "dare", "della"), "spread": ("della",), "seed": ("dare", "della")}


class FormulaConfig(StageConfig):
    """How models become one."""

    group: ClassVar[str] = "Formula"

    mode: ModeName = "weighted-sum"
    """The formula; docs/merging.md has them all."""
    alpha: Share | None = None
    """Share of B, or of the change; otherwise the mode's usual one (0.5 of a sum, 1 of a difference)."""
    beta: Share | None = None
    """The second share of triple-sum and sum-twice."""
    alpha_unet: Share | None = None
    """Alpha of the UNet alone."""
    alpha_te: Share | None = None
    """Alpha of the text encoders alone; 0 keeps those of A."""
    alpha_vae: Share | None = None
    """Alpha of the VAE alone; 0 keeps that of A."""
    blocks: str | None = None
    """Alpha block by block: 26 (SDXL: 20) numbers, the short list of 17 (12), or a preset such as GRAD_V."""
    layers: dict[str, Share] = Field(default_factory=dict)
    """Alpha of layers, by a part of their names: {attn2 = 0.3, "up_blocks.1" = 0.7}; the longest part wins."""
    density: Fraction = 0.5
    """Share of each change that ties, dare and della keep."""
    spread: Fraction = 0.1
    """How far della's densities go to either side of density."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """For what dare and della drop by chance."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for key, modes in _MODES_WITH.items():
            if self.mode not in modes:
                self.refuse_without_effect([key], f"on the mode {self.mode}")
        if self.blocks is not None:
            self.refuse_without_effect(["alpha", "alpha_unet"], "beside blocks, which give every part its alpha")
        return self


class StepConfig(FormulaConfig):
    """A step of a recipe: a formula over models and earlier steps, or LoRAs put into one."""

    name: str
    """What later steps call the result."""
    models: list[str] = Field(min_length=1, max_length=3)
    """Names of the table [models], or of earlier steps."""
    loras: list[str] = Field(default_factory=list)
    """LoRAs to put into the only model: FILE:0.8."""

    @model_validator(mode="after")
    def _agree_with_loras(self) -> Self:
        if self.loras:
            self.refuse_without_effect(FormulaConfig.model_fields, "on a step of LoRAs, which has no formula")
        return self


class RecipeConfig(StageConfig):
    """A recipe's file: models by name, and steps, of which the last is the result."""

    models: dict[str, Path]
    """Name -> file, folder or "pocket"; relative to the recipe."""
    steps: list[StepConfig] = Field(min_length=1, max_length=1000)
    """In order; the last is the result."""


class BlendConfig(FormulaConfig, WritingConfig):
    """What `maquette blend` does."""

    models: list[Path] = Field(default=[], max_length=3)
    """A, B and, where the mode takes one, C: files, diffusers folders or "pocket"."""
    recipe: Path | None = None
    """Instead of models: a TOML file with [models] and [[steps]]."""
    block_presets: Path | None = None
    """File of block weight presets of your own, NAME:1,0,… on each line."""
    bake_vae: Path | None = None
    """Put this VAE into the result."""
    make_inpainting: Path | None = None
    """A model that learns to inpaint: models are the inpainting model and the base that both come from."""
    pix2pix: bool = False
    """With make_inpainting: the model is instruct-pix2pix (8 channels), which edits by instructions."""

    @model_validator(mode="after")
    def _agree_with_recipe(self) -> Self:
        if self.recipe is not None:
            self.refuse_without_effect(FormulaConfig.model_fields, "beside a recipe, whose steps have their own")
        return self
