"""Which subject is trained in which setting: a balanced fraction of methods x rates x prior preservation x photos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

SUBJECTS = 24
BATCH = 4
STEPS = 320
SAVED = 20  # steps between saved files
CHECKPOINTS = (20, 40, 60, 80, 100, 120, 140, 160, 200, 240, 280, 320)  # those that are kept
WEIGHTS = (0.5, 0.7, 0.85, 1.0, 1.15)

METHODS: dict[str, dict[str, Any]] = {
    "lora-4": {"method": "lora", "rank": 4},
    "lora-16": {"method": "lora", "rank": 16},
    "dreambooth": {"method": "dreambooth"},
    "lokr": {"method": "lokr"},
}
RATES = {"lora-4": (2e-3, 6e-3), "lora-16": (2e-3, 6e-3), "dreambooth": (4e-4, 1.2e-3), "lokr": (6e-3, 1.8e-2)}
DATA = ("captioned", "uncaptioned", "five")
PAIRS = ((0, False), (1, False), (1, True), (0, True))
SHIFTS = ((0, 2, 3, 1), (2, 0, 1, 3))  # found by search among all: the most even beginnings
PRIOR = {"prior_preservation": True, "prior_share": 0.25}


@dataclass(frozen=True)
class Setting:
    """One training."""

    subject: int
    method: str
    rate: int  # 0, the lower, or 1
    prior: bool
    data: str

    @property
    def name(self) -> str:
        rate, prior = ("low", "high")[self.rate], "prior" if self.prior else "free"
        return f"{self.subject:02}-{self.method}-{rate}-{prior}-{self.data}"

    @property
    def options(self) -> dict[str, Any]:
        """Keys of TrainConfig."""
        rate = RATES[self.method][self.rate]
        return {**METHODS[self.method], "learning_rate": rate, **(PRIOR if self.prior else {})}

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "learning_rate": RATES[self.method][self.rate]}


def settings(subjects: int) -> Iterator[Setting]:
    """Four settings of each subject, the first of every subject before the second of any.

    Every subject meets each method once and each pair of rate and prior preservation once. Over 24 subjects each of
    the 4 x 2 x 2 x 3 cells is trained twice, and every 24 trainings meet each pair of levels of method, rate and prior
    preservation, and each of method and photos, equally often: whatever is done so far is nearly balanced.
    """
    methods = list(METHODS)
    for turn in range(4):
        for s in range(subjects):
            k = (s + turn) % 4
            rate, prior = PAIRS[(s // 3 + SHIFTS[s // 12 % 2][k]) % 4]
            yield Setting(s, methods[k], rate, prior, DATA[(s + k) % 3])


def key(setting: Setting, subject: dict[str, object]) -> str:
    """What a training depends on."""
    text = json.dumps([setting.told(), setting.options, subject, BATCH, STEPS, CHECKPOINTS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
