"""Whether training does on the card what it does on the CPU, on the pocket base and photos that are drawn here.

Noise, timesteps and the draw from each posterior come from the CPU's generator on either device, so two steps must have
the same losses but for rounding. TF32 is off here, whose ten bits would hide mistakes.
"""

from __future__ import annotations

import shutil
import threading
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import torch

import maquette
from maquette.config import TrainConfig
from maquette.demo import mascot as demo_mascot
from maquette.events import Event

from .rows import Rows

METHODS = get_args(TrainConfig.model_fields["method"].annotation)
STEPS = 3
TOLERANCE = 2e-4  # of a loss in fp32: sums in another order, and exp and tanh of another library
HALF = {"bf16": 0.02, "fp16": 0.005}  # of a loss: 8 and 11 bits, averaged over a picture's numbers


def _photos(out: Path) -> Path:
    """The demo's photos, drawn once."""
    folder = out / "photos"
    demo_mascot.write_photos(folder)
    return folder


def _train(
    out: Path, name: str, device: str, stop_at: int | None = None, **options: Any
) -> tuple[list[float], Path, list[str]]:
    """Train into a new run folder. Returns the losses, the folder and the warnings."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    losses, warnings, cancel = [], [], threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "metric" and "loss" in event.data:
            losses.append(float(event.data["loss"]))
            if event.data["step"] == stop_at:
                cancel.set()
        elif event.kind == "warning":
            warnings.append(event.data["message"])

    run = out / "runs" / name
    shutil.rmtree(run, ignore_errors=True)
    values = {
        "subject": "zkw robot", "steps": STEPS, "batch_size": 4, "rank": 4, "dtype": "fp32", "sample_prompts": [],
        "device": device, "out": run,
    }  # fmt: skip
    maquette.train(_photos(out), listen, cancel, **{**values, **options})
    return losses, run, warnings


def _apart(a: list[float], b: list[float]) -> float:
    """Largest relative difference of two rows of losses."""
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def methods(device: str, out: Path) -> None:
    """Every method's losses on the card beside those on the CPU."""
    rows = Rows("methods", out)
    options: dict[str, dict[str, Any]] = {name: {"method": name} for name in METHODS}
    options["lora and text encoder"] = {"method": "lora", "text_encoder": True}
    options["lora, checkpointing"] = {"method": "lora", "gradient_checkpointing": True}
    options["lora, prior preservation"] = {"method": "lora", "prior_preservation": True}
    for name, chosen in options.items():
        try:
            found, _, warnings = _train(out, "card", device, **chosen)
            expected = found if device == "cpu" else _train(out, "cpu", "cpu", **chosen)[0]
        except Exception as error:  # the other methods are to be tried too
            rows.add(False, method=name, error=f"{type(error).__name__}: {error}")
            continue
        apart = _apart(found, expected)
        rows.add(apart < TOLERANCE, method=name, losses=found, apart=apart, warnings=len(warnings))
        for message in warnings:
            print(f"      {message}", flush=True)
    rows.end()


def resume(device: str, out: Path) -> None:
    """With `deterministic`, a run that was stopped after two steps ends in the bytes of one that was not."""
    rows = Rows("resume", out)
    for method in ("lora", "dreambooth") if device == "cpu" else ("lora", "loha", "dreambooth", "textual-inversion"):
        chosen = {"method": method, "deterministic": True, "steps": 5}
        try:
            _, whole, _ = _train(out, f"whole/{method}", device, **chosen)
            _, parted, _ = _train(out, f"parted/{method}", device, stop_at=2, **chosen)
            result = maquette.resume(parted)
        except Exception as error:
            rows.add(False, method=method, error=f"{type(error).__name__}: {error}")
            continue
        assert result.file is not None
        hashes = [sha256(Path(file).read_bytes()).hexdigest()[:12] for file in (_final(whole), result.file)]
        rows.add(hashes[0] == hashes[1], method=method, uninterrupted=hashes[0], resumed=hashes[1])
    rows.end()


def _final(run: Path) -> Path:
    """The final file of a run: the one model at its top."""
    return next(path for path in run.glob("*.safetensors"))


def graphs(device: str, out: Path) -> None:
    """Losses with passes recorded and without; a recording that is not trusted is a warning."""
    rows = Rows("graphs", out)
    for method in ("lora",) if device == "cpu" else ("lora", "locon", "dora", "loha", "lokr"):
        for dtype in ("fp32", "bf16"):
            chosen = {"method": method, "dtype": dtype, "steps": 6, "deterministic": False}
            try:
                plain, _, _ = _train(out, "plain", device, **chosen, cuda_graphs=False)
                recorded, _, warnings = _train(out, "recorded", device, **chosen)
            except Exception as error:
                rows.add(False, method=method, dtype=dtype, error=f"{type(error).__name__}: {error}")
                continue
            apart, refused = _apart(recorded, plain), [w for w in warnings if "CUDA graphs" in w]
            limit = TOLERANCE if dtype == "fp32" else HALF["bf16"]
            rows.add(apart < limit and not refused, method=method, dtype=dtype, apart=apart, refused=refused)
    rows.end()


def types(device: str, out: Path) -> None:
    """Training and drawing in half precision beside float32."""
    rows = Rows("types", out)
    exact, run, _ = _train(out, "fp32", device)
    for dtype, limit in HALF.items():
        for method in ("lora",) if device == "cpu" else ("lora", "dreambooth", "textual-inversion"):
            base = exact if method == "lora" else _train(out, "exact", device, method=method)[0]
            try:
                found, _, _ = _train(out, dtype, device, method=method, dtype=dtype)
            except maquette.MaquetteError as error:
                rows.add(False, dtype=dtype, method=method, error=str(error))
                continue
            apart = _apart(found[:1], base[:1])  # fp16 may lower its loss scale for some steps before it learns
            rows.add(apart < limit and all(map(isfinite, found)), dtype=dtype, method=method, losses=found, apart=apart)
    pictures = {}
    for dtype in ("fp32", "bf16", "fp16"):
        drawn = maquette.generate(
            f"a photo of zkw robot <lora:{_final(run).stem}:1>", lora_dir=str(run), device=device, dtype=dtype, seed=1,
            out=str(out / "pictures" / dtype),
        )  # fmt: skip
        pictures[dtype] = torch.frombuffer(bytearray(drawn.images[0].tobytes()), dtype=torch.uint8).float()
        apart = float((pictures[dtype] - pictures["fp32"]).abs().mean())
        rows.add(apart < 12, drawing=dtype, mean_difference_of_255=apart)
    rows.end()


def compiled(device: str, out: Path) -> None:
    """Losses of compiled blocks beside those of plain ones."""
    rows = Rows("compile", out)
    for method in ("lora",) if device == "cpu" else ("lora", "locon"):
        plain, _, _ = _train(out, "plain", device, method=method, cuda_graphs=False)
        found, _, _ = _train(out, "compiled", device, method=method, compile=True)
        apart = _apart(found, plain)
        rows.add(apart < TOLERANCE, method=method, losses=found, apart=apart)
    rows.end()
