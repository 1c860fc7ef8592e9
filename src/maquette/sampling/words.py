"""The prompts of a drawing: without comments, and the LoRAs that their tags name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import adapters
from ..adapters.file import Adapter
from ..prompts import parse_networks, strip_comments
from .lora_folder import find_loras, tags_of


@dataclass
class Words:
    """The prompts without comments; the prompt also without its tags (plain), and what these name."""

    prompt: str
    plain: str
    negative: str
    files: dict[str, Path]
    loras: list[tuple[Adapter, float, float]]
    warnings: list[str]

    @classmethod
    def read(cls, prompt: str, negative: str, comments: bool, lora_dir: Path | None) -> Words:
        """comments: leave out what stands behind #. lora_dir: where the LoRAs are looked for.

        Raises MaquetteError for a tag at fault, an unknown LoRA and a prompt that is too long.
        """
        given = [prompt, negative]
        if comments:
            prompt, negative = strip_comments(prompt), strip_comments(negative)
        plain, networks = parse_networks(prompt)
        tags = tags_of(networks, plain)
        files = find_loras([tag.name for tag in tags], lora_dir)
        loras = [(adapters.load(files[tag.name]), tag.te, tag.unet) for tag in tags]
        warnings = _warnings(given, [prompt, negative], negative)
        return cls(prompt, plain, negative, {tag.name: files[tag.name] for tag in tags}, loras, warnings)

    @property
    def adapters(self) -> list[Adapter]:
        return [adapter for adapter, *_ in self.loras]


def _warnings(given: Sequence[str], kept: Sequence[str], negative: str) -> list[str]:
    """What is done as in A1111 and may surprise: comments that go, tags of the negative prompt that do nothing."""
    warnings = []
    for whole, part in zip(given, kept, strict=True):
        if whole != part:
            comment = whole[whole.index("#") :].split("\n")[0]
            warnings.append(
                f"{comment[:60]!r} in the prompt is a comment and left out, as in A1111; --no-prompt-comments keeps it."
            )
    if tags := parse_networks(negative)[1]:
        warnings.append(f"<{tags[0].kind}:…> in the negative prompt is read as words; name LoRAs in the prompt itself.")
    return warnings
