"""A ComfyUI workflow while it is made: its nodes, and what is known of the drawing besides the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Link = list[Any]
"""[number of a node, slot of its output]."""


@dataclass(frozen=True)
class Facts:
    """What a workflow needs to know besides the settings. channels: of the UNet's input; size: of the first drawing;
    embeddings: the names of textual inversions that the prompts call; vae: the file of one that is not the base's;
    zero_snr: whether the schedule ends in pure noise.
    """

    base: str
    family: str
    channels: int
    prediction: str
    cfg_scale: float
    size: tuple[int, int]
    embeddings: tuple[str, ...] = ()
    vae: str = ""
    zero_snr: bool = False


@dataclass
class Workflow:
    """nodes: number -> {"class_type", "inputs"}, as ComfyUI's API takes it. notes: what will differ, in sentences."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, **inputs: Any) -> str:
        """A node; links are [number, slot]. Returns its number."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return number

    def note(self, text: str) -> None:
        """A sentence, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class Model:
    """Where a checkpoint, as LoRAs and settings changed it, comes out."""

    model: Link
    clip: Link
    vae: Link
