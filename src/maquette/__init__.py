"""Maquette: from a folder of photos to a LoRA that makes Stable Diffusion draw their subject.

Every stage is a function here, with the options of the command line as keywords; a wrong one is a MaquetteError.

    result = maquette.train("photos/", subject="zkw robot")
    picture = maquette.generate("a photo of zkw robot <lora:zkw-robot:0.8>", lora_dir=result.run)[0]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import MaquetteError
from .openmp import wait_asleep

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path

    from .config import TrainConfig
    from .events import Event
    from .families.base import BaseModel
    from .fleet.comparing import CompareResult
    from .sampling.pipeline import Pipeline
    from .stages.caption import CaptionResult
    from .stages.check import CheckResult
    from .stages.convert import ConvertResult
    from .stages.evaluate import EvaluateResult
    from .stages.extract import ExtractResult
    from .stages.generate import GenerateResult
    from .stages.grid import GridResult
    from .stages.inspect import InspectResult
    from .stages.prune import PruneResult
    from .stages.push import PushResult
    from .stages.regularize import RegularizeResult
    from .stages.resize import ResizeResult
    from .stages.runs import RunsResult
    from .stages.train import TrainResult
    from .stages.writing_model import WrittenModel

    Listener = Callable[[Event], None]

__version__ = "0.1.0"  # the only place that says it: the package's metadata, files and pictures take it from here

__all__ = [
    "MaquetteError",
    "Pipeline",
    "blend",
    "caption",
    "check",
    "compare",
    "convert",
    "demo_photos",
    "evaluate",
    "extract",
    "generate",
    "grid",
    "inspect",
    "merge",
    "prune",
    "push",
    "regularize",
    "resize",
    "resume",
    "runs",
    "train",
]

_SUBPACKAGES = {"core", "data", "evaluation", "families", "fleet", "formats", "methods", "prompts", "stages", "weights"}

wait_asleep()  # whoever begins with this package, a program of ours or a child of one


def check(photos: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> CheckResult:
    """What is wrong with a folder of photos, and what training on it costs. options: keys of CheckConfig."""
    from .config.photos import CheckConfig
    from .events import ignore
    from .stages.check import run

    return run(CheckConfig.parse({"photos": photos, **options}, "check"), on_event or ignore)


def caption(photos: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> CaptionResult:
    """Write a text file beside each photo that has none, and edit many at once. options: keys of CaptionConfig."""
    from .config.photos import CaptionConfig
    from .events import ignore
    from .stages.caption import run

    return run(CaptionConfig.parse({"photos": photos, **options}, "caption"), on_event or ignore)


def regularize(out: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> RegularizeResult:
    """Fill a folder with pictures of the class, drawn by the base. options: keys of RegularizeConfig."""
    from .config.photos import RegularizeConfig
    from .events import ignore
    from .stages.regularize import run

    return run(RegularizeConfig.parse({"out": out, **options}, "regularize"), on_event or ignore)


def demo_photos(folder: str | PathLike[str]) -> list[Path]:
    """Draw the demonstration's fourteen pictures of a "zkw robot" with their captions, for a try without photos of
    one's own; the paths of the pictures. What is there already is left; MaquetteError where anything else lies there.
    """
    from pathlib import Path

    from .demo.mascot import write_photos

    return write_photos(Path(folder))


def train(
    photos: str | PathLike[str] | TrainConfig,
    on_event: Listener | None = None,
    cancel: threading.Event | None = None,
    **options: Any,
) -> TrainResult:
    """Train a LoRA on a folder of photos, into a new run folder. options: keys of config.TrainConfig, or one itself.

    on_event is called in the training thread. Setting `cancel`, from any thread, ends the run after the step at work
    with everything saved: the result's status is "stopped", and `resume` goes on.
    """
    from .config import TrainConfig
    from .events import ignore
    from .stages.train import run

    if isinstance(photos, TrainConfig):
        config = TrainConfig.parse(photos.model_dump(exclude_unset=True) | options, "train")
    else:
        config = TrainConfig.parse({"photos": photos, **options}, "train")
    return run(config, on_event or ignore, cancel)


def resume(
    run: str | PathLike[str],
    on_event: Listener | None = None,
    cancel: threading.Event | None = None,
    **changes: Any,
) -> TrainResult:
    """Go on with a run, to the same bytes as if it had never stopped. changes: `steps`, or what moves no weight."""
    from os import fspath

    from .events import ignore
    from .stages.train import resume as go_on

    return go_on(fspath(run), changes, on_event or ignore, cancel)


def evaluate(run: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> EvaluateResult:
    """Choose a run's checkpoint and its weight, say why, and write the page. options: keys of EvaluateConfig.

    run: a run folder, or any folder of LoRA files, with `photos`, `subject` and `base` named.
    """
    from .config.runs import EvaluateConfig
    from .events import ignore
    from .stages.evaluate import run as evaluated

    return evaluated(EvaluateConfig.parse({"run": run, **options}, "evaluate"), on_event or ignore)


def compare(photos: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> CompareResult:
    """Train several ways on the same photos, measured on one panel. options: keys of config.compare.CompareConfig."""
    from .config.compare import CompareConfig
    from .events import ignore
    from .fleet.comparing import run

    return run(CompareConfig.parse({"photos": photos, **options}, "compare"), on_event or ignore)


def push(run: str | PathLike[str], to: str, on_event: Listener | None = None, **options: Any) -> PushResult:
    """Write a run's model card with pictures, and with upload=True send it and the file to the hub, "hf:owner/name".
    options: keys of config.runs.PushConfig.
    """
    from .config.runs import PushConfig
    from .events import ignore
    from .stages.push import run as pushed

    return pushed(PushConfig.parse({"run": run, "to": to, **options}, "push"), on_event or ignore)


def runs(on_event: Listener | None = None, **options: Any) -> RunsResult:
    """List runs, compare two, or say what they need no more. options: keys of config.runs.RunsConfig."""
    from .config.runs import RunsConfig
    from .events import ignore
    from .stages.runs import run

    return run(RunsConfig.parse(options, "runs"), on_event or ignore)


def generate(
    prompt: str,
    on_event: Listener | None = None,
    base: str | PathLike[str] | BaseModel | Pipeline = "pocket",
    cancel: threading.Event | None = None,
    **options: Any,
) -> GenerateResult:
    """Draw pictures and write them. options: keys of sampling.draw_settings.GenerateConfig.

    The result is a sequence of Pillow images, with `paths`, `seeds` and `infotexts` beside it.
    base: "pocket", a path, a base that `maquette.families.load` has opened, or a Pipeline, which saves loading it and
    its LoRAs again. Setting `cancel`, from any thread, ends after the batch at work.
    """
    from os import fspath

    from .events import ignore
    from .families.base import BaseModel
    from .sampling.pipeline import Pipeline
    from .stages.generate import GenerateConfig, run

    opened = base if isinstance(base, BaseModel | Pipeline) else None
    model = base.base if isinstance(base, Pipeline) else base
    source = model.source if isinstance(model, BaseModel) else fspath(model)
    config = GenerateConfig.parse({"prompt": prompt, "base": source, **options}, "generate")
    return run(config, on_event or ignore, cancel, opened)


def grid(
    prompt: str, on_event: Listener | None = None, cancel: threading.Event | None = None, **options: Any
) -> GridResult:
    """Draw a grid over the axes x, y, z (`x="weight=0.4-1 [4]"`). options: keys of sampling.grid.settings.GridConfig.

    Setting `cancel`, from any thread, ends after the picture at work; the same call goes on.
    """
    from .events import ignore
    from .stages.grid import GridConfig, run

    return run(GridConfig.parse({"prompt": prompt, **options}, "grid"), on_event or ignore, cancel)


def inspect(path: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> InspectResult:
    """What a file or model folder is: family, method, rank, metadata, hashes. options: keys of InspectConfig."""
    from .config.weights import InspectConfig
    from .events import ignore
    from .stages.inspect import run

    return run(InspectConfig.parse({"path": path, **options}, "inspect"), on_event or ignore)


def convert(
    source: str | PathLike[str], to: str, out: str | PathLike[str], on_event: Listener | None = None, **options: Any
) -> ConvertResult:
    """Write a model or adapter in another layout. options: keys of config.weights.ConvertConfig."""
    from .config.weights import ConvertConfig
    from .events import ignore
    from .stages.convert import run

    return run(ConvertConfig.parse({"source": source, "to": to, "out": out, **options}, "convert"), on_event or ignore)


def extract(
    tuned: str | PathLike[str],
    base: str | PathLike[str],
    out: str | PathLike[str],
    on_event: Listener | None = None,
    **options: Any,
) -> ExtractResult:
    """Write the LoRA that turns one model into about another. options: keys of config.weights.ExtractConfig."""
    from .config.weights import ExtractConfig
    from .events import ignore
    from .stages.extract import run

    values = {"tuned": tuned, "base": base, "out": out, **options}
    return run(ExtractConfig.parse(values, "extract"), on_event or ignore)


def prune(
    lora: str | PathLike[str],
    base: str | PathLike[str],
    out: str | PathLike[str],
    on_event: Listener | None = None,
    **options: Any,
) -> PruneResult:
    """Write a LoRA without the blocks that do not matter. options: keys of config.weights.PruneConfig."""
    from os import fspath

    from .config.weights import PruneConfig
    from .events import ignore
    from .stages.prune import run

    values = {"lora": lora, "base": fspath(base), "out": out, **options}
    return run(PruneConfig.parse(values, "prune"), on_event or ignore)


def merge(
    base: str | PathLike[str] | None,
    loras: list[str] | str,
    out: str | PathLike[str],
    on_event: Listener | None = None,
    **options: Any,
) -> WrittenModel:
    """Put LoRAs ("me.safetensors:0.8") into a checkpoint for good, or with to="lora" into one LoRA. options: keys of
    stages.merge.MergeConfig.
    """
    from .config.weights import MergeConfig
    from .events import ignore
    from .stages.merge import run

    values = {"loras": [loras] if isinstance(loras, str) else loras, "out": out, **options}
    return run(MergeConfig.parse(values | ({"base": base} if base else {}), "merge"), on_event or ignore)


def blend(
    models: list[str | PathLike[str]], out: str | PathLike[str], on_event: Listener | None = None, **options: Any
) -> WrittenModel:
    """One checkpoint of two or three, or of a recipe. options: keys of config.blend.BlendConfig."""
    from .config.blend import BlendConfig
    from .events import ignore
    from .stages.blend import run

    return run(BlendConfig.parse({"models": models, "out": out, **options}, "blend"), on_event or ignore)


def resize(
    lora: str | PathLike[str], out: str | PathLike[str], on_event: Listener | None = None, **options: Any
) -> ResizeResult:
    """Write a LoRA at another rank. options: keys of config.weights.ResizeConfig."""
    from .config.weights import ResizeConfig
    from .events import ignore
    from .stages.resize import run

    return run(ResizeConfig.parse({"lora": lora, "out": out, **options}, "resize"), on_event or ignore)


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from .sampling.pipeline import Pipeline

        return Pipeline
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
