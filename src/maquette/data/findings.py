"""What is likely to go wrong with a training, in the same sentences from `maquette check` and before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..events import Event, Listener
from .dataset import Dataset, Problem
from .doctor import Look, examine_captions, examine_photos, examine_regularization

SAME_KIND = 5  # findings of a kind that a training tells; the rest is counted
TOY = (
    "The base is pocket, a toy that comes with maquette: what is trained on it works in maquette alone, in no other "
    "program. To train for Stable Diffusion, name a model: --base with a file, a diffusers folder or hf:owner/name."
)


def of_photos(
    dataset: Dataset,
    subject: str | None,
    looks: Mapping[Path, Look],
    tokens: Callable[[str], Sequence[int]],
    max_token_length: int,
    seen: int,
) -> list[Problem]:
    """Everything that is found in a planned data set. seen: how many regularization images the whole run will see."""
    return [
        *dataset.problems,
        *examine_captions(dataset, subject, tokens, max_token_length),
        *examine_regularization(dataset, seen),
        *examine_photos(dataset, looks),
    ]


def shortened(problems: Iterable[Problem], most: int, where: str) -> list[Problem]:
    """At most `most` problems of a kind, and a line that counts the rest. where: what lists all of them."""
    problems = list(problems)
    kinds = Counter(problem.kind for problem in problems)
    shown: list[Problem] = []
    seen: Counter[str] = Counter()
    for problem in problems:
        seen[problem.kind] += 1
        if seen[problem.kind] <= most:
            shown.append(problem)
        elif seen[problem.kind] == most + 1:
            rest = kinds[problem.kind] - most
            shown.append(Problem(problem.kind, "", f"… and {rest} more of this kind ({where} lists all)."))
    return shown


def sentence(problem: Problem) -> str:
    """The problem for a person."""
    return ("left out: " if problem.left_out else "") + problem.message


def tell(problems: Iterable[Problem], on_event: Listener) -> None:
    """A "finding" event for each."""
    for problem in shortened(problems, SAME_KIND, "maquette check"):
        on_event(Event("finding", {"message": sentence(problem), "kind": problem.kind, "photo": problem.photo}))
