"""Families beside Stable Diffusion: what opens a base that is laid out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .base import BaseModel, FamilySpec


@dataclass(frozen=True)
class Family:
    """accepts: whether a path is such a base, by what lies there. open: (path, type of the numbers, device, type of the
    network's numbers) -> the base, frozen and in eval mode.
    """

    spec: FamilySpec
    accepts: Callable[[Path], bool]
    open: Callable[[Path, torch.dtype, torch.device, torch.dtype], BaseModel]


FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Let `families.load` open a family's bases; one of the same name takes the place of the one before."""
    FAMILIES[family.spec.name] = family


def family_of(path: str | Path) -> Family | None:
    """The family that accepts a path, or None: then it is a Stable Diffusion, or nothing that is known."""
    return next((family for family in FAMILIES.values() if family.accepts(Path(path))), None)
