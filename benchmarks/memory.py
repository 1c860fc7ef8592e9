"""What fits into a graphics card: memory of a training step at full size, walked through with tensors without contents.

Computed, not measured: the networks and the most that encoding one photo keeps, after which VAE and text encoders leave
the card; then the UNet, what learns with AdamW, and the most that one pass forward and back keeps, which the tests hold
to what a step really makes. A process has half a gigabyte or so besides, and allocators waste some.

python -m benchmarks.memory
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import torch

from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.families.base import BaseModel
from maquette.families.full_size import networks
from maquette.families.sd.model import StableDiffusion
from maquette.families.sd.spec import SD1, TARGETS
from maquette.families.sdxl.model import StableDiffusionXL
from maquette.families.sdxl.spec import SDXL
from maquette.methods import METHODS, attach
from maquette.methods.base import MethodSpec
from maquette.training.attaching import unet_slots
from maquette.training.memory import PER_NUMBER, PeakMemory, pass_bytes

CARDS = (6, 8, 12, 16, 24)  # GB
ROOM = 0.9  # share of a card that a process can use
CASES: list[tuple[str, str, int, int, bool]] = [
    # family, method, pixels, photos at once, checkpointing
    *[("sd1", "lora", 512, n, again) for n in (1, 4) for again in (False, True)],
    ("sd1", "dreambooth", 512, 1, False),
    ("sd1", "dreambooth", 512, 1, True),
    *[("sdxl", "lora", 1024, n, again) for n in (1, 4) for again in (False, True)],
    ("sdxl", "dreambooth", 1024, 1, True),
]


def opened(family: str) -> tuple[BaseModel, Conditioning]:
    """A base without contents, and the shapes of a prompt's conditioning."""
    parts = dict(networks(family))
    kind, spec = (StableDiffusionXL, SDXL) if family == "sdxl" else (StableDiffusion, SD1)
    unet, vae = parts.pop("unet"), parts.pop("vae")
    base = kind(
        spec=spec, network=unet, vae=vae, text_encoders=list(parts.values()), tokenizers=[], scheduler_config={},
        source=family, content_hash="", targets=TARGETS,
    )  # fmt: skip
    width = unet.config.cross_attention_dim  # type: ignore[union-attr]
    pooled = torch.empty(1, 1280, device="meta") if family == "sdxl" else None
    return base, Conditioning(torch.empty(1, 77, width, device="meta"), pooled)


def figures(family: str, method: str, pixels: int, photos: int, again: bool) -> dict[str, Any]:
    """Bytes of a case, in bf16."""
    base, told = opened(family)
    config = TrainConfig.parse({"photos": Path("."), "method": method, "dtype": "bf16"})
    weights = sum(p.numel() for p in base.unet.parameters())
    others = 4 * sum(p.numel() for part in (base.vae, *base.text_encoders) for p in part.parameters())
    with torch.no_grad(), PeakMemory() as peak:
        base.encode_images(torch.empty(1, 3, pixels, pixels, device="meta"))
    if METHODS[method].product == "model":
        frozen, learning = 4 * weights, weights  # the base's own weights stay aside, in float32
    else:
        frozen = 2 * weights
        made = attach(method, unet_slots(config, base), MethodSpec(rank=config.rank))
        learning = sum(p.numel() for group in made.parameter_groups().values() for p in group)
        made.detach()
    step = pass_bytes(base, config, told, (photos, pixels // 8, pixels // 8), again)
    return {"encoding": frozen + others + peak.most, "unet": frozen, "learning": learning * PER_NUMBER, "step": step}


def main() -> None:
    rows = []
    for family, method, pixels, photos, again in CASES:
        found = figures(family, method, pixels, photos, again)
        first = found.pop("encoding") / 1e9
        total = max(first, sum(found.values()) / 1e9)
        fits = next((f"{card} GB" for card in CARDS if total + 0.5 < ROOM * card), "–")
        cells = [family, method, pixels, photos, "yes" if again else "no"]
        cells += [f"{first:.2f}", *(f"{value / 1e9:.2f}" for value in found.values()), f"{total:.1f}", fits]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    head = ["base", "method", "pixels", "photos at once", "checkpointing"]
    head += ["encoding", "UNet", "what learns", "a step", "most"]
    print(f"{date.today()}, GB, bf16, rank 16, AdamW\n\n| {' | '.join([*head, 'smallest card'])} |\n|{'---|' * 11}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
