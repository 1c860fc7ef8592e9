"""What judging one file costs on a full-size base, beside training steps on the same base in the same process.

python -m benchmarks.evaluation_cost --device cuda [--out FILE]     # SD1.5 at 512 pixels, a minute
python -m benchmarks.evaluation_cost --px 256 --sizes QUICK         # on a CPU, ten minutes
python -m benchmarks.evaluation_cost --px 64 --narrow               # narrow networks: to see whether everything runs

Random weights, 14 random photos, a random LoRA of rank 16 on attention and feed-forward. Passes are rows through the
UNet as they are counted, FLOP those of the UNet alone. On a graphics card seconds end when the device is done, after
one evaluation to warm up, and memory is the most that it held; on a CPU, which may be busy with other things, seconds
are those of the processor, and memory is the process's so far. A file at a weight is what `maquette evaluate` does for
each (step, weight): its panel's questions, its pictures, and their judgement.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.load import write_model
from benchmarks.train_step import flops, make_narrow, maquette_step, model_file
from maquette import adapters, methods
from maquette.config import TrainConfig
from maquette.core.dtypes import DTYPES
from maquette.evaluation import build_panel
from maquette.evaluation.drawing import decoded
from maquette.evaluation.example import Example
from maquette.evaluation.measures import examine
from maquette.evaluation.panel import QUICK, STANDARD
from maquette.evaluation.tuned import tuned
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.methods.spec import MethodSpec
from maquette.training.attaching import unet_slots
from maquette.training.defaults import pick_dtype

FAMILY, SUBJECT, PHOTOS, RANK = "sd1", "ohwx man", 14, 16
SIZES = {"QUICK": QUICK, "STANDARD": STANDARD}
WEIGHTS = {"cpu": (0.7,), "cuda": (0.5, 0.7, 1.0)}  # at which the file is measured
BATCHES = (1, 4)  # of the training steps
SHARE = 0.1  # of the training's time, that a file at a weight may cost
WARM_UP, STEPS = {"cpu": 1, "cuda": 5}, {"cpu": 3, "cuda": 30}  # training steps


class Meter:
    """Seconds, passes through a UNet and memory of what is done."""

    def __init__(self, device: str) -> None:
        self.device, self.passes = device, 0

    @contextmanager
    def counting(self, base: BaseModel) -> Iterator[None]:
        """Count the rows that go through the base's UNet."""

        def count(network: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            self.passes += len(inputs[0])

        hook = base.network.register_forward_pre_hook(count)
        try:
            yield
        finally:
            hook.remove()

    def __call__(self, work: Callable[[], Any], times: int = 1) -> dict[str, float]:
        """Median seconds and mean passes of so many calls, and the most bytes held."""
        self.passes, found = 0, []
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(times):
            self._wait()
            began = self._now()
            work()
            self._wait()
            found.append(self._now() - began)
        return {"seconds": statistics.median(found), "passes": self.passes / times, "memory": self._memory()}

    def _now(self) -> float:
        return time.perf_counter() if self.device == "cuda" else time.process_time()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _memory(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def computing(device: str) -> str:
    """Type in which training computes by default there, and its verdict with it."""
    dtype = pick_dtype("auto", torch.device(device), "lora")
    return next(name for name, kind in DTYPES.items() if kind == dtype)


def random_lora(base: BaseModel, file: Path) -> None:
    """A LoRA on the layers that training adapts by default, of small random numbers."""
    config = TrainConfig.parse({"photos": Path("."), "rank": RANK})
    attached = methods.attach("lora", unet_slots(config, base), MethodSpec(rank=RANK))
    state = {name: value.detach().cpu() for name, value in attached.state().items()}
    attached.detach()
    random = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if name.endswith("lora_up.weight"):
            state[name] = torch.randn(value.shape, generator=random) * 1e-3
    adapters.from_state_dict(state, {}, "the benchmark's").save(file)


def evaluations(
    model: Path, lora: Path, px: int, device: str, sizes: Sequence[str], flop: float
) -> Iterator[dict[str, Any]]:
    """A row for each part of an evaluation. flop: of a pass."""
    base, meter = load(model, device=torch.device(device), dtype=DTYPES[computing(device)]), Meter(device)
    random_lora(base, lora)
    random = torch.Generator().manual_seed(1)
    photos = [
        Example(torch.rand(3, px, px, generator=random) * 2 - 1, f"a photo of {SUBJECT}", f"{i}") for i in range(PHOTOS)
    ]
    panels: dict[str, Any] = {}

    def build(name: str) -> None:
        panels[name] = build_panel(base, photos, SUBJECT, size=SIZES[name])

    drawn: list[Any] = []

    def measure(name: str, weight: float) -> None:
        drawn[:] = [examine(base, change, weight, panels[name])[1]]

    with meter.counting(base):
        change = tuned(base, lora, SUBJECT)
        if device == "cuda":
            for name in sizes:  # to warm up: every shape is met once
                build(name)
                measure(name, 1.0)
        yield {"what": "reading the file", **meter(lambda: tuned(base, lora, SUBJECT))}
        for name in sizes:
            found = meter(partial(build, name))
            yield {"what": f"the panel, {name}", **found, "flop": found["passes"] * flop}
            weights = iter(WEIGHTS[device])
            found = meter(lambda name=name, weights=weights: measure(name, next(weights)), len(WEIGHTS[device]))
            yield {"what": f"a file at a weight, {name}", **found, "flop": found["passes"] * flop}
        latents = drawn[0].subject
        decoded(base, latents[:1])
        yield {
            "what": f"decoding the {len(latents)} pictures that the report shows",
            **meter(lambda: decoded(base, latents)),
        }


def training(folder: Path, px: int, batch: int, device: str, flop: float) -> dict[str, Any]:
    """A row for the product's own training step. flop: of the step."""
    options = argparse.Namespace(
        px=px, batch=batch, family=FAMILY, device=device, method="lora", worker="maquette", dtype=computing(device)
    )  # fmt: skip
    gc.collect()  # the base and the job of the row before, which would count as memory
    step, meter = maquette_step(options, folder), Meter(device)
    for _ in range(WARM_UP[device]):
        step()

    def steps() -> None:
        for _ in range(STEPS[device]):
            loss = step()
        if not bool(torch.isfinite(loss)):
            raise SystemExit("The loss is no number: these random weights show nothing.")

    found = meter(steps)
    seconds = found["seconds"] / STEPS[device]
    return {"what": f"a training step, batch {batch}", "seconds": seconds, "memory": found["memory"], "flop": flop}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; every row also in steps of each batch, and in steps from which on it is less than SHARE of them."""
    steps = [row["seconds"] for row in rows if row["what"].startswith("a training step")]
    heads = ["", "passes", "TFLOP", "seconds", "memory", *(f"in steps of {batch}" for batch in BATCHES)]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        passes, flop = row.get("passes"), row.get("flop")
        lines.append(
            [
                row["what"],
                f"{passes:.0f}" if passes else "–",
                f"{flop / 1e12:.3g}" if flop else "–",
                f"{row['seconds']:.3g}",
                f"{row['memory'] / 1e9:.1f} GB",
                *(f"{row['seconds'] / step:.3g}" for step in steps),
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    for row in rows:
        if row["what"].startswith("a file"):
            least = " and ".join(
                f"{row['seconds'] / SHARE / step:.0f} steps of {batch}"
                for step, batch in zip(steps, BATCHES, strict=True)
            )
            text += f"\n\n{row['what']}: less than {SHARE:.0%} of the training from {least} on."
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(STEPS), default="cpu")
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of the panel")
    parser.add_argument("--folder", type=Path, help="where the random weights lie or will, and stay")
    parser.add_argument("--narrow", action="store_true", help="narrow networks: to see whether everything runs")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        if options.narrow:
            make_narrow(folder, FAMILY)
        elif not model_file(folder, FAMILY).exists():
            write_model(model_file(folder, FAMILY), FAMILY)
        one = flops(FAMILY, options.px, 1, options.narrow, backward=False)
        model, lora = model_file(folder, FAMILY), folder / "lora.safetensors"
        rows = list(evaluations(model, lora, options.px, options.device, options.sizes.split(","), one))
        for batch in BATCHES:
            flop = flops(FAMILY, options.px, batch, options.narrow)
            rows.append(training(folder, options.px, batch, options.device, flop))
    told = {
        "date": f"{date.today()}", "device": name, "dtype": computing(options.device), "pixels": options.px,
        "flop_of_a_pass": one, "rows": rows,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n")
    kind = "narrow networks" if options.narrow else "SD1.5, random weights"
    shown = f"{told['date']}, {name}, {kind}, {told['dtype']}, {options.px} px, {one / 1e12:.3g} TFLOP a pass"
    print(f"{shown}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
