"""The card of a model on the Hugging Face hub: README.md with the facts that the hub reads at its head."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..methods import METHODS
from ..shown import visible

PICTURES = "images"  # folder of the repository


@dataclass(frozen=True)
class Card:
    """What a card tells. weight: None of a file that has none."""

    title: str
    config: TrainConfig
    license: str
    file: str
    weight: float | None
    prompts: Sequence[str]  # of the pictures images/0.png …
    reasons: Sequence[str]
    photos: int


def text(card: Card) -> str:
    """README.md. Names and prompts come from the user: each stands as JSON text in the head, and escaped below it."""
    config, product = card.config, METHODS[card.config.method].product
    base = config.base.removeprefix("hf:") if config.base.startswith("hf:") else None
    head: dict[str, Any] = {
        "license": card.license,
        "tags": ["text-to-image", "stable-diffusion", "maquette", *_tags(config.method)],
        "instance_prompt": config.subject or "",
        "widget": [{"text": p, "output": {"url": f"{PICTURES}/{i}.png"}} for i, p in enumerate(card.prompts)],
    }
    if base:
        head["base_model"] = base
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items())
    parts = [f"---\n{yaml}\n---", f"# {_plain(card.title)}", _what(card, product)]
    if card.prompts:
        shown = "\n".join(f"| {_plain(p)} | ![]({PICTURES}/{i}.png) |" for i, p in enumerate(card.prompts))
        parts.append(f"| prompt | picture |\n|---|---|\n{shown}")
    if card.reasons:
        parts.append("## Why this checkpoint\n\n" + "\n".join(f"- {_plain(reason)}" for reason in card.reasons))
    parts += [f"## Use\n\n```\n{_use(card, product)}\n```", _training(card)]
    return "\n\n".join(parts) + "\n"


def _tags(method: str) -> list[str]:
    of = {"adapter": ["lora", "template:sd-lora"], "embedding": ["textual-inversion"], "model": ["dreambooth"]}
    return of[METHODS[method].product]


def _what(card: Card, product: str) -> str:
    kind = {"adapter": "LoRA", "embedding": "textual inversion embedding", "model": "model"}[product]
    called = f" Prompts call it by **{_plain(card.config.subject)}**." if card.config.subject else ""
    photos = f"{card.photos} photo{'' if card.photos == 1 else 's'}"
    weight = f" It is best at weight {card.weight:g}." if card.weight is not None else ""
    return f"A {kind} for {_plain(Path(card.config.base).name)}, trained on {photos}.{called}{weight}"


def _use(card: Card, product: str) -> str:
    prompt = f"a photo of {card.config.subject}" if card.config.subject else (card.prompts or ["a photo"])[0]
    name, base = Path(card.file).stem, card.config.base
    if product == "model":
        return f"maquette generate {shlex.quote(prompt)} --base {shlex.quote(card.file)}"
    named = base if base.startswith("hf:") else Path(base).name  # of a file without the folders of who trained
    chosen = "" if base == "pocket" else f" --base {shlex.quote(named)}"
    if product == "adapter":
        return f"maquette generate {shlex.quote(f'{prompt} <lora:{name}:{card.weight or 1:g}>')}{chosen} --lora-dir ."
    prompt = prompt.replace(card.config.subject or name, name)
    return f"maquette generate {shlex.quote(prompt)}{chosen} --embedding-dir {shlex.quote(card.file)}"


def _training(card: Card) -> str:
    config = card.config
    rows = {
        "method": config.method, "steps": config.steps, "photos per step": config.batch_size,
        "learning rate": config.learning_rate, "scheduler": config.lr_scheduler, "seed": config.seed,
    }  # fmt: skip
    if METHODS[config.method].product == "adapter":
        rows |= {"rank": config.rank, "alpha": config.alpha}
    lines = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"## Training\n\n| | |\n|---|---|\n{lines}\n\nTrained with maquette; the photos are not here."


def _plain(words: str | None) -> str:
    """A name or prompt within Markdown, where it commands nothing."""
    text = visible(words or "")
    for sign in "\\`*_{}[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
