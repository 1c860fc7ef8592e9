"""The verdict in words: why this checkpoint, what is wrong with the others, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from .choice import Choice, Fault, Row, faults

# What practitioners call it, and what helps.
NAMES: dict[str, tuple[str, str]] = {
    "gap": (
        "the photos are learned by heart (held-out photos are predicted {value:.2f} worse than trained ones)",
        "train fewer steps, or give more photos",
    ),
    "drift": ("the class changes (drift {value:.2f})", "give regularization images, or set prior_preservation = true"),
    "neighbour_drift": (
        "the base degrades: other things change too (drift {value:.2f})",
        "train fewer steps or at a lower learning rate, use a lower weight, or set prior_preservation = true",
    ),
    "leak": (
        "the subject leaks into its class: the class word alone calls {percent:.0f} % of it",
        "give regularization images, or set prior_preservation = true",
    ),
    "edit_retention": (
        "prompts no longer steer the picture (edit retention {value:.2f})",
        "write captions that name what is not the subject, use a lower weight, or train fewer steps",
    ),
    "obedience": (
        "prompts no longer steer the picture ({percent:.0f} % are drawn as asked)",
        "write captions that name what is not the subject, use a lower weight, or train fewer steps",
    ),
    "neighbours": (
        "other things are no longer drawn as asked ({percent:.0f} % are right)",
        "train fewer steps, use a lower weight, or set prior_preservation = true",
    ),
    "copying": (
        "{percent:.0f} % of the pictures copy a photo",
        "give more photos in different places, train fewer steps, or let flip and random_crop vary them",
    ),
    "diversity": (
        "the concept narrows: pictures are {percent:.0f} % as diverse as the base's",
        "give photos in more poses and places, or train fewer steps",
    ),
}


def phrase(fault: Fault) -> str:
    """What a passed limit means, in words that practitioners use, with its value."""
    text = NAMES[fault.measure][0] if fault.measure in NAMES else f"{fault.measure} is {{value:.2f}}"
    return text.format(value=fault.value, percent=100 * fault.value)


def remedies(found: Sequence[Fault]) -> list[str]:
    """What to do about passed limits, each once."""
    return list(dict.fromkeys(NAMES[fault.measure][1] for fault in found if fault.measure in NAMES))


def place(row: Row, unit: str = "step") -> str:
    return f"{unit} {row.step} at weight {row.weight:g}"


def reason(choice: Choice, rows: Sequence[Row], unit: str = "step") -> list[str]:
    """Sentences: what was chosen and what it does; how sure that is; what is wrong with the last step; what is wrong
    with the chosen one itself.
    """
    row = choice.row
    sentences = [f"Take {place(row, unit)}: {summary(row)}."]
    if choice.prefer != "balanced":
        sentences[0] = f"{sentences[0][:-1]} (chosen for {choice.prefer})."
    same = sorted({other.step for other in choice.accepted} - {row.step})
    if same:
        span = (
            f"{unit}{'s' * (len(same) > 1)} {', '.join(map(str, same))}"
            if len(same) < 4
            else f"{len(same)} later {unit}s up to {same[-1]}"
        )
        sentences.append(f"The difference to {span} is within the noise of the measurement, so the earliest is taken.")
    last = max(rows, key=lambda other: (other.step, -abs(other.weight - 1)))
    if last.step != row.step:
        found = faults(last.values, choice.rule)
        if found:
            sentences.append(f"{place(last, unit).capitalize()} is overtrained: {'; '.join(map(phrase, found))}.")
    if choice.faults:
        sentences.append(
            f"Even the chosen one is overtrained: {'; '.join(map(phrase, choice.faults))}. "
            f"Next time: {'; or '.join(remedies(choice.faults))}."
        )
    return sentences


def summary(row: Row) -> str:
    """The figures that a person asks for first."""
    values = row.values
    parts = []
    if "likeness" in values:
        parts.append(f"likeness {values['likeness']:.2f}")
    if "obedience" in values:
        parts.append(f"{100 * values['obedience']:.0f} % of prompts followed")
    if "neighbours" in values:
        parts.append(f"{100 * values['neighbours']:.0f} % of other things as asked")
    if not parts:
        parts = [f"benefit {values.get('benefit', 0.0):.2f}", f"edit retention {values.get('edit_retention', 1.0):.2f}"]
    return ", ".join(parts)
