"""For which bases the measures are worth what they say: each family is validated by itself, or not judged."""

from __future__ import annotations

from ..errors import MaquetteError
from ..families.base import BaseModel

STYLE_CAUTION = (
    "The limits were set on things, not on styles, of which only three have been tried: look at the pictures before "
    "you trust them."
)
VALIDATED = ("pocket",)  # families on which benchmarks/checkpoint_choice.py has compared the rule with the truth


def require_measurable(base: BaseModel) -> None:
    """Raise MaquetteError for a base that predicts flow: on a style there, held-out loss was found to mislead (Spearman
    -0.40 with what the pictures are worth), and no validation has shown that the other measures do not.
    """
    if base.scheduler_config.get("prediction_type") == "flow":
        raise MaquetteError(
            "No measure of checkpoints has been validated on bases that predict flow, so none is better than the last"
        )


def caution(base: BaseModel, style: bool = False) -> str | None:
    """A sentence for a base, and for a style, on which the rule has not been compared with the truth."""
    if base.spec.name in VALIDATED:
        return STYLE_CAUTION if style else None
    return (
        "The limits were set on the small built-in base; on this family nobody has measured yet how often they are "
        "right. Look at the pictures before you trust them."
    )
