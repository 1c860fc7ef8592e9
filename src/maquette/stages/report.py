"""report.html of a run: one page with everything in it, to be opened, sent or kept."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..methods import METHODS
from ..run import RunFolder, write_text
from .findings import TOY

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { font-weight: 600; } .grid td, .grid th { text-align: center; } .grid th.prompt { text-align: left; width: 14rem; }
.scroll { overflow-x: auto; } .grid img { width: 9rem; image-rendering: auto; border-radius: 4px; }
pre { background: #f2f4f7; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
svg { max-width: 100%; height: auto; } .faint { color: #667; } .facts th { color: #667; font-weight: 400; }
"""


def write(folder: RunFolder) -> Path:
    """Write (again) the report of a run, finished or not, from what lies in its folder."""
    config = TrainConfig.read(folder.config)
    data = json.loads(folder.dataset.read_text(encoding="utf-8"))
    metrics = folder.read_metrics()
    step = metrics[-1]["step"] if metrics else 0
    state = "finished" if folder.final.exists() else f"stopped at step {step} of {config.steps}"
    parts = [
        f"<h1>{_text(folder.name)}</h1>",
        _facts(config, data, state),
        "<h2>What each checkpoint draws</h2>",
        _grid(folder),
        "<h2>Loss</h2>",
        loss_curve([(line["step"], line["loss"]) for line in metrics]),
        "<h2>Go on</h2>",
        f"<pre>{_text(commands(folder, config))}</pre>",
        _left_out(data),
        _photos(data),
    ]
    head = f'<meta charset="utf-8"><title>{_text(folder.name)}</title><style>{STYLE}</style>'
    write_text(
        folder.report, f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )
    return folder.report


def commands(folder: RunFolder, config: TrainConfig) -> str:
    """Command lines that go on from here."""
    if not folder.final.exists():
        return f"maquette train --resume {shlex.quote(str(folder.path))}"
    prompt = (config.sample_prompts or [f"a photo of {config.subject}"])[0]
    longer = f"maquette train --resume {shlex.quote(str(folder.path))} --steps {2 * (config.steps or 0)}"
    if METHODS[config.method].product == "model":
        return f"maquette generate {shlex.quote(prompt)} --base {shlex.quote(str(folder.final))}\n{longer}"
    if METHODS[config.method].product == "embedding":
        named = prompt.replace(config.subject or folder.name, folder.name)
        return f"maquette generate {shlex.quote(named)} --embedding-dir {shlex.quote(str(folder.final))}\n{longer}"
    tagged = shlex.quote(f"{prompt} <lora:{folder.name}:0.8>")
    base = "" if config.base == "pocket" else f" --base {shlex.quote(config.base)}"
    lora_dir = shlex.quote(str(folder.path))
    return (
        f"maquette generate {tagged}{base} --lora-dir {lora_dir}\n"
        f"maquette inspect {shlex.quote(str(folder.final))}\n"
        f"{longer}    # twice as long"
    )


def _facts(config: TrainConfig, data: dict[str, Any], state: str) -> str:
    photos = [photo for photo in data["photos"] if photo["role"] == "instance"]
    rows = {
        "Subject": config.subject or "from the captions",
        "Base": Path(config.base).name + (f". {TOY}" if config.base == "pocket" else ""),
        "Method": config.method
        + ("" if METHODS[config.method].product != "adapter" else f", rank {config.rank}, alpha {config.alpha:g}"),
        "Photos": f"{len(photos)} used, {len(data['left_out'])} left out",
        "Training": f"{config.steps} steps of {config.batch_size}, learning rate {config.learning_rate:g}, "
        f"{config.scheduler}, seed {config.seed}",
        "State": state,
    }
    cells = "".join(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in rows.items())
    return f'<table class="facts">{cells}</table>'


def _grid(folder: RunFolder) -> str:
    """Prompts down, checkpoints across."""
    folders = sorted((f for f in folder.path.glob("samples/*") if (f / "prompts.json").exists()), key=lambda f: f.name)
    if not folders:
        return '<p class="faint">No sample pictures were asked for.</p>'
    prompts = json.loads((folders[-1] / "prompts.json").read_text(encoding="utf-8"))
    heads = "".join(f"<th>{'base' if int(f.name) == 0 else 'step ' + str(int(f.name))}</th>" for f in folders)
    rows = []
    for i, prompt in enumerate(prompts):
        cells = "".join(f"<td>{_image(f / f'{i}.png', prompt)}</td>" for f in folders)
        rows.append(f'<tr><th class="prompt">{_text(prompt)}</th>{cells}</tr>')
    return f'<div class="scroll"><table class="grid"><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'


def _image(path: Path, alt: str) -> str:
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{_text(alt)}" src="data:image/png;base64,{data}">'


def loss_curve(points: list[tuple[int, float]], width: int = 900, height: int = 260) -> str:
    """SVG of the loss over steps: every step faint, and the running mean of a twentieth of the run."""
    points = [(step, loss) for step, loss in points if loss == loss and abs(loss) != float("inf")]
    if len(points) < 2:
        return '<p class="faint">Too few steps for a curve.</p>'
    left, top, bottom = 50, 10, 30
    first, last = points[0][0], points[-1][0]
    highest = sorted(loss for _, loss in points)[int(0.99 * (len(points) - 1))] * 1.1 or 1.0

    def place(step: float, loss: float) -> str:
        x = left + (step - first) / max(1, last - first) * (width - left - 10)
        y = top + (1 - min(loss, highest) / highest) * (height - top - bottom)
        return f"{x:.1f},{y:.1f}"

    window = max(2, len(points) // 20)
    means = []
    for i, (step, _) in enumerate(points):
        recent = [loss for _, loss in points[max(0, i - window + 1) : i + 1]]
        means.append((step, sum(recent) / len(recent)))
    axis = height - bottom

    def label(x: float, y: float, text: object, anchor: str = "end") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'

    marks = "".join(label(left - 6, top + (1 - p) * (axis - top) + 4, f"{highest * p:.3g}") for p in (0.0, 0.5, 1.0))
    ends = label(left, height - 8, first, "start") + label(width - 10, height - 8, last)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss over steps" font-size="12" fill="#667">'
        f'<path d="M{left},{top} V{axis} H{width - 10}" stroke="#ccd" fill="none"/>{marks}{ends}'
        f'<polyline points="{" ".join(place(*p) for p in points)}" stroke="#b8c4d6" fill="none"/>'
        f'<polyline points="{" ".join(place(*p) for p in means)}" stroke="#1f5fbf" stroke-width="2" fill="none"/></svg>'
    )


def _left_out(data: dict[str, Any]) -> str:
    if not data["left_out"]:
        return ""
    items = "".join(f"<li>{_text(entry['message'])}</li>" for entry in data["left_out"])
    return f"<h2>Left out</h2><ul>{items}</ul>"


def _photos(data: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(p['name'])}</td><td>{p['size'][0]} × {p['size'][1]}</td>"
        f"<td>{p['bucket'][0]} × {p['bucket'][1]}</td><td>{p['repeats']}</td><td>{_text(p['caption'])}</td></tr>"
        for p in data["photos"]
    )
    head = "<tr><th>Photo</th><th>Size</th><th>Trained at</th><th>Repeats</th><th>Caption</th></tr>"
    return f"<h2>Photos</h2><table>{head}{rows}</table>"


def _text(value: object) -> str:
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f]", "", str(value)))
