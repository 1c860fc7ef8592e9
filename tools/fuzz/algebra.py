"""Models and LoRAs with a wrong header, given to the commands that merge, blend, extract, resize, prune and compare."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import nasty
from .weights import safetensors_bytes

_ANOTHER_DTYPE = ("F32", "F64", "I64", "BF16", "U8", "BOOL", "F8_E4M3", "C64", "F7", "", None)


@cache
def _model() -> tuple[dict[str, Any], bytes]:
    """Header and body of a narrow SD1 checkpoint in float16."""
    import torch

    from maquette.families import checkpoint, save
    from tools.golden import models

    with tempfile.TemporaryDirectory(prefix="fuzz-model-") as folder:
        path = Path(folder) / "model.safetensors"
        save.write_single_file(checkpoint.read(models.write(Path(folder) / "model")), path, torch.float16)
        raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def prepare() -> None:
    """Write the narrow model, and build the networks whose layers adapters may name."""
    from .weights import prepare as prepare_layers

    prepare_layers()
    _model()


def _wrong(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    """The header with some of its entries absent, renamed, or of another type, shape or place."""
    made = {name: dict(entry) for name, entry in header.items()}
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        name = rng.choice(list(made))
        act, entry = rng.randrange(7), made[name]
        if not isinstance(entry, dict):  # changed before
            continue
        if act == 0:
            del made[name]
        elif act == 1:
            made[nasty.text(rng)] = made.pop(name)
        elif act == 2 and "shape" in entry:
            entry["shape"] = rng.choice((entry["shape"][::-1], [*entry["shape"], 1], [1 << 62, 4], [-1], [], "x", [0]))
        elif act == 3:
            entry["dtype"] = rng.choice(_ANOTHER_DTYPE)
        elif act == 4:
            entry["data_offsets"] = rng.choice(([0, 0], [0, 1 << 62], [8, 4], [-1, 1], None, [0, 1, 2]))
        elif act == 5:
            made["__metadata__"] = {nasty.text(rng): nasty.as_json(nasty.value(rng)) for _ in range(3)}
        else:
            made[name] = nasty.value(rng)
    return made


def _write_model(rng: random.Random, path: Path, damaged: bool) -> None:
    header, body = _model()
    if damaged:
        header = _wrong(rng, header)
        if rng.random() < 0.2:
            body = body[: rng.randrange(len(body))]
        elif rng.random() < 0.3:
            place = rng.randrange(len(body) - 64) & ~1
            body = body[:place] + rng.choice((b"\x00\x7e", b"\x00\x7c", b"\xff\xff")) * 8 + body[place + 16 :]
    raw = nasty.as_json(header).encode("utf-8", "surrogatepass")
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)


def algebra_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    lora, one, other = (folder / name for name in ("lora.safetensors", "one.safetensors", "other.safetensors"))
    out = folder / "out.safetensors"
    which = rng.randrange(8)
    lora.write_bytes(safetensors_bytes(rng))
    damaged = rng.random() < 0.8
    _write_model(rng, one, damaged and which != 0)
    _write_model(rng, other, damaged and rng.random() < 0.3)

    def run() -> None:
        from maquette.config import blend as blending
        from maquette.config import weights as config
        from maquette.stages import blend, convert, extract, inspect, merge, prune, resize

        stages: tuple[Callable[[], object], ...] = (
            lambda: merge.run(config.MergeConfig(base=one, loras=[str(lora)], out=out)),
            lambda: merge.run(config.MergeConfig(base=one, loras=[str(lora)], out=out)),
            lambda: merge.run(config.MergeConfig(loras=[str(lora), f"{lora}:0.5"], to="lora", out=out)),
            lambda: blend.run(blending.BlendConfig(models=[one, other], alpha=0.3, out=out)),
            lambda: extract.run(config.ExtractConfig(tuned=one, base=other, rank=2, out=out)),
            lambda: resize.run(config.ResizeConfig(lora=lora, rank=1, out=out)),
            lambda: inspect.run(config.InspectConfig(path=one, compare=other)),
            lambda: convert.run(config.ConvertConfig(source=one, to="diffusers-dir", out=folder / "out")),
        )
        if which == 5 and rng.random() < 0.3:
            prune.run(config.PruneConfig(lora=lora, base=str(one), blocks="IN01", out=out))
        else:
            stages[which]()

    def checked() -> None:
        before = {path.name for path in folder.iterdir()}
        try:
            run()
        except Exception:
            left = {path.name for path in folder.iterdir()} - before
            assert not left, f"a failed command left {sorted(left)}"
            raise

    return checked
