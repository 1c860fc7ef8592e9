"""The configurations of `maquette evaluate`, `runs`, `push`, `demo`, `command` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from .base import Count, Kind, Positive, StageConfig

WEIGHTS = (0.5, 0.7, 0.85, 1.0, 1.15)  # at which checkpoints are tried


class EvaluateConfig(StageConfig):
    """What is evaluated, on which photos, and what counts."""

    run: Path
    """Run folder, or any folder with the LoRA files that a trainer saved on the way."""
    photos: Path | None = None
    """Photos that were trained on; of a run folder the run's own."""
    subject: str | None = None
    """The rare word and the class, "ohwx man"; of a run folder the run's own."""
    base: str | None = None
    """Base model; of a run folder the run's own, else pocket."""
    prefer: Literal["likeness", "balanced", "flexible"] = "balanced"
    """What counts more: likeness to the photos, or that prompts still steer and other things stay what they are."""
    weights: list[Positive] = Field(default=list(WEIGHTS), min_length=1)
    """Weights at which checkpoints are tried."""
    fold_weight: bool = False
    """Write the chosen file with its weight folded in, so that 1 is right."""
    thorough: bool = False
    """Measure every checkpoint at every weight, with more pictures; many times slower."""
    quick: bool = False
    """Measure on the smallest panel, and no more cells than there are checkpoints: rough, and several times faster."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the panel: which photos, noise and pictures are compared."""
    seeds: Count = 1
    """Measure on so many panels, of this seed and the next: how far they differ is noise, and so many times slower."""
    twin: Path | None = None
    """Another run of the same settings, or its folder of LoRA files: how far the two differ is noise too."""
    clip: Path | None = None
    """Folder with a CLIP model of transformers: likeness by it, and CLIP-I and CLIP-T on DreamBench's prompts."""
    dino: Path | None = None
    """Folder with a DINO model of transformers: likeness by it, and DINO, PRES and, with two pictures a prompt, DIV."""
    per_prompt: Count = 1
    """Pictures of each of DreamBench's 25 prompts; the paper draws 4."""
    faces: bool = False
    """Of a person: also measure whose face is drawn, beside the photos'."""
    kind: Kind | None = None
    """What the subject is; of a run folder what the run was told. A style is asked for things in it; of people and
    animals DreamBench asks for other things than of objects."""
    out: Path | None = None
    """Where page and chosen file go; for a run folder that folder itself, else runs/ and the folder's name."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    @model_validator(mode="after")
    def _agree(self) -> EvaluateConfig:
        if self.quick and self.thorough:
            raise ValueError("give quick or thorough, not both")
        if self.clip is None and self.dino is None:
            given = {"per_prompt": self.per_prompt != 1, f"kind {self.kind}": self.kind not in (None, "style")}
            for key in (key for key, is_given in given.items() if is_given):
                raise ValueError(f"{key} is of the measures that clip and dino add: name one of them")
        return self


class RunsConfig(StageConfig):
    """Which runs are listed, compared or cleaned."""

    runs: list[Path] = Field(default=[])
    """Run folders; otherwise all in `folder`. Two of them are compared."""
    folder: Path = Path("runs")
    """Where runs lie."""
    clean: bool = False
    """Say what finished runs need no more (what a kill left, states to resume from, encoded photos) and how much room
    it takes; with `yes`, remove it."""
    checkpoints: bool = False
    """With `clean`: also checkpoints that were not chosen, after which nothing can be chosen anew; the last stays."""
    yes: bool = False
    """With `clean`: remove it, without asking."""
    out: Path | None = None
    """Of two runs: the picture with both side by side; otherwise in `folder`."""


class PushConfig(StageConfig):
    """What of a run goes to the Hugging Face hub."""

    run: Path
    """Run folder of a finished run."""
    to: str
    """Where to: hf:owner/name."""
    upload: bool = False
    """Upload; otherwise the card and pictures are only written, into the run folder's `hub`, to be read first."""
    private: bool = True
    """A repository that is made is seen by its owner alone."""
    license: str = "other"
    """The licence that the card names, as the hub spells it; a file may not be freer than its base."""


class DemoConfig(StageConfig):
    """Where the demonstration goes. What `maquette train` does not do by default is in `demo/settings.py`."""

    out: Path = Path("runs/demo")
    """Run folder; where it is taken, the next free name: runs/demo-2 and so on. The photos lie beside it."""
    steps: Count = 130
    """Training steps; 130 are enough for the pocket base to know the mascot."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the training."""


class CommandConfig(StageConfig):
    """What `maquette command` writes."""

    run: Path
    """Run folder."""
    program: Literal["kohya", "diffusers"] = "kohya"
    """Whose command: kohya (sd-scripts) or diffusers (its example scripts)."""


class ImportConfig(StageConfig):
    """What `maquette import` reads and writes."""

    program: Literal["kohya"]
    """Whose configuration it is: kohya."""
    file: Path
    """Script with the command (sh, bat, ps1), .toml, or .json of the GUI."""
    out: Path | None = None
    """Write the configuration here instead of to the screen."""
