"""report.html of a run: one page with everything in it, to be opened, sent or kept."""

from __future__ import annotations

import base64
import math
import shlex
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..data.findings import TOY
from ..errors import MaquetteError
from ..files import is_regular, read_bytes, write_text
from ..limits import RECORD_BYTES
from ..methods import METHODS
from ..parsing import read_json, read_object
from ..run_folder import RunFolder
from .pages import render, style_sheet
from .samples import drawn

WEIGHT = 0.8  # multiplier at which a LoRA is offered: in the side-car, the report and every example
_PICTURE_BYTES = 50_000_000  # of a sample picture; a larger file is none of ours


def write(folder: RunFolder, verdict: dict[str, Any] | None = None) -> Path:
    """Write (again) the report of a run, finished or not, from what lies in its folder.

    verdict: what the page shows of the verdict on its checkpoints, as `evaluation.page_values` has it.
    """
    config = TrainConfig.read(folder.config)
    data = _dataset(folder)
    metrics = folder.read_metrics()
    step = metrics[-1]["step"] if metrics else 0
    state = "finished" if folder.chosen else f"stopped at step {step} of {config.steps}"
    page = render(
        "report.html",
        style=style_sheet("report.css"),
        title=folder.name,
        facts=_facts(config, data, state),
        verdict=verdict,
        grid=_grid(folder, verdict["step"] if verdict else None),
        curve=loss_curve([(line["step"], line["loss"]) for line in metrics]),
        commands=commands(folder, config),
        left_out=[entry["message"] for entry in data["left_out"]],
        photos=data["photos"],
    )
    write_text(folder.report, page)
    return folder.report


def write_verdict(out: Path, verdict: dict[str, Any], file: Path, subject: str, base: str, product: str) -> Path:
    """The page on the files of another trainer: the verdict, without what only a run folder knows. product: what the
    file is, as `methods.METHODS` has it.
    """
    prompt = f"a photo of {subject}"
    page = render(
        "report.html",
        style=style_sheet("report.css"),
        title=out.name,
        facts=[("Subject", subject), ("Base", Path(base).name)],
        verdict=verdict,
        grid={"heads": [], "rows": []},
        curve=None,
        commands=_generate(product, prompt, subject, base, file),
        left_out=[],
        photos=[],
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def preferred_weight(file: Path) -> float:
    """The weight at which a LoRA is offered, as its side-car says."""
    card = file.with_suffix(".json")
    sidecar = read_json(card, RECORD_BYTES, "side-car") if card.exists() else {}
    weight = sidecar.get("preferred weight") if isinstance(sidecar, dict) else None
    return float(weight) if isinstance(weight, int | float) and not isinstance(weight, bool) else WEIGHT


def _dataset(folder: RunFolder) -> dict[str, Any]:
    """dataset.json. Raises MaquetteError where it does not list photos as a run writes them."""
    data = read_object(folder.dataset)
    needed = {"photos": ("name", "role", "size", "bucket", "repeats", "caption"), "left_out": ("message",)}
    for key, fields in needed.items():
        rows = data.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= {*fields} for row in rows):
            raise MaquetteError(f"{folder.dataset} is damaged: its {key!r} are not as a run writes them.")
    for photo in data["photos"]:
        if not all(isinstance(photo[key], list) and len(photo[key]) == 2 for key in ("size", "bucket")):
            raise MaquetteError(f"{folder.dataset} is damaged: a photo's size is not two numbers.")
    return data


def commands(folder: RunFolder, config: TrainConfig) -> str:
    """Command lines that go on from here."""
    file = folder.chosen
    if file is None:
        return f"maquette train --resume {shlex.quote(str(folder.path))}"
    prompt = (config.sample_prompts or [f"a photo of {config.subject}" if config.subject else "a photo"])[0]
    path = shlex.quote(str(folder.path))
    longer = f"maquette train --resume {path} --steps {2 * (config.steps or 0)}"
    product = METHODS[config.method].product
    drawing = _generate(product, prompt, config.subject or folder.name, config.base, file)
    if product != "adapter":
        return f"{drawing}\n{longer}"
    return (
        f"{drawing}\n"
        f"maquette evaluate {path} --prefer flexible    # or likeness: another choice, from the same files\n"
        f"maquette inspect {shlex.quote(str(file))}\n"
        f"{longer}    # twice as long"
    )


def _generate(product: str, prompt: str, subject: str, base: str, file: Path) -> str:
    """The command that draws with a file. product: what it is, as `methods.METHODS` has it."""
    if product == "model":
        return f"maquette generate {shlex.quote(prompt)} --base {shlex.quote(str(file))}"
    chosen = "" if base == "pocket" else f" --base {shlex.quote(_from_here(base))}"
    if product == "embedding":
        named = shlex.quote(prompt.replace(subject, file.stem))
        return f"maquette generate {named}{chosen} --embedding-dir {shlex.quote(str(file))}"
    tagged = shlex.quote(f"{prompt} <lora:{file.stem}:{preferred_weight(file):g}>")
    return f"maquette generate {tagged}{chosen} --lora-dir {shlex.quote(str(file.parent))}"


def _from_here(place: str) -> str:
    """A path as seen from the current folder, as the run's own is; one that lies elsewhere, or a name, as it is."""
    here = Path.cwd()
    return str(Path(place).relative_to(here)) if Path(place).is_relative_to(here) else place


def _facts(config: TrainConfig, data: dict[str, Any], state: str) -> list[tuple[str, str]]:
    photos, held = ([photo for photo in data["photos"] if photo["role"] == role] for role in ("instance", "held"))
    rows = {
        "Subject": config.subject or "from the captions",
        "Base": Path(config.base).name + (f". {TOY}" if config.base == "pocket" else ""),
        "Method": config.method
        + ("" if METHODS[config.method].product != "adapter" else f", rank {config.rank}, alpha {config.alpha:g}"),
        "Photos": f"{len(photos)} used, {len(data['left_out'])} left out" + (f", {len(held)} held out" if held else ""),
        "Training": f"{config.steps} steps of {config.batch_size}, learning rate {config.learning_rate:g}, "
        f"{config.lr_scheduler}, seed {config.seed}",
        "State": state,
    }
    return list(rows.items())


def _grid(folder: RunFolder, chosen: int | None) -> dict[str, Any]:
    """Prompts down, checkpoints across: heads, and of each prompt its pictures in base64, "" for one that lacks, and
    whether they are of the chosen step.
    """
    folders = {step: place for step, place in folder.sample_folders().items() if drawn(place)}
    if not folders:
        return {"heads": [], "rows": []}
    return {
        "heads": [("base" if step == 0 else f"step {step}", step == chosen) for step in folders],
        "rows": [
            (prompt, [(_picture(place / f"{i}.png"), step == chosen) for step, place in folders.items()])
            for i, prompt in enumerate(drawn(list(folders.values())[-1]))
        ],
    }


def _picture(path: Path) -> str:
    return base64.b64encode(read_bytes(path, _PICTURE_BYTES, "sample picture")).decode() if is_regular(path) else ""


def loss_curve(points: list[tuple[int, float]], width: int = 900, height: int = 260) -> dict[str, Any]:
    """What loss.svg draws: the loss of every step, and the running mean of a twentieth of the run. {}: too few."""
    points = [(step, loss) for step, loss in points if math.isfinite(loss)]
    if len(points) < 2:
        return {}
    left, top, bottom = 50, 10, 30
    first, last = points[0][0], points[-1][0]
    highest = sorted(loss for _, loss in points)[int(0.99 * (len(points) - 1))] * 1.1 or 1.0

    def place(step: float, loss: float) -> str:
        x = left + (step - first) / max(1, last - first) * (width - left - 10)
        y = top + (1 - min(loss, highest) / highest) * (height - top - bottom)
        return f"{x:.1f},{y:.1f}"

    axis = height - bottom

    def label(x: float, y: float, text: object, anchor: str = "end") -> dict[str, str]:
        return {"x": f"{x:.0f}", "y": f"{y:.0f}", "text": str(text), "anchor": anchor}

    marks = [label(left - 6, top + (1 - p) * (axis - top) + 4, f"{highest * p:.3g}") for p in (0.0, 0.5, 1.0)]
    return {
        "width": width,
        "height": height,
        "axes": f"M{left},{top} V{axis} H{width - 10}",
        "labels": [*marks, label(left, height - 8, first, "start"), label(width - 10, height - 8, last)],
        "points": " ".join(place(*point) for point in points),
        "means": " ".join(place(*point) for point in _running_mean(points)),
    }


def _running_mean(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    window = max(2, len(points) // 20)
    sums = [0.0, *accumulate(loss for _, loss in points)]
    starts = (max(0, i - window + 1) for i in range(len(points)))
    return [(points[i][0], (sums[i + 1] - sums[start]) / (i + 1 - start)) for i, start in enumerate(starts)]
