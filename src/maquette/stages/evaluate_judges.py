"""What judges beside the base in `maquette evaluate`: the user's CLIP and DINO, and faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config.base import Kind
from ..config.runs import EvaluateConfig
from ..data.wording import Wording
from ..errors import MaquetteError
from ..evaluation import dreambench
from ..evaluation.candidates import Candidate
from ..evaluation.encoders import Encoder, open_clip, open_dino
from ..evaluation.example import Example
from ..evaluation.faces import FaceJudge
from ..evaluation.tuned import tuned
from ..evaluation.verdict import Verdict
from ..families.base import BaseModel


@dataclass(frozen=True)
class Encoders:
    """The user's CLIP and DINO."""

    config: EvaluateConfig
    base: BaseModel
    wording: Wording
    living: bool
    clip: Encoder | None
    dino: Encoder | None

    @property
    def eye(self) -> Encoder | None:
        """By which likeness is measured: DINO, which tells subjects of one class apart, before CLIP."""
        return self.dino or self.clip

    def table(
        self, candidates: Sequence[Candidate], verdict: Verdict, photos: Sequence[Example], clip_skip: int = 1,
        cfg_scale: float | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Rows on the chosen file; none without encoders, nor of a style, which DreamBench knows nothing of."""
        if (self.clip is None and self.dino is None) or self.wording.style:
            return []
        subject = self.wording.subject
        file = next(one.file for one in candidates if one.step == verdict.choice.step)
        return dreambench.table(
            self.base, tuned(self.base, file, subject), verdict.choice.weight, photos, subject, clip=self.clip,
            dino=self.dino, living=self.living, per_prompt=self.config.per_prompt, seed=self.config.seed,
            clip_skip=clip_skip, cfg_scale=cfg_scale,
        )  # fmt: skip


def open_judges(
    config: EvaluateConfig, base: BaseModel, photos: Sequence[Example], subject: str, kind: Kind | None
) -> tuple[Encoders, FaceJudge | None]:
    """What judges beside the base, opened before anything is measured."""
    wording, living = Wording.for_subject(subject, kind), kind in ("person", "animal")
    if wording.style and config.per_prompt != 1:
        raise MaquetteError("DreamBench asks for subjects, not for styles: leave --per-prompt out.")
    if wording.style and config.faces:
        raise MaquetteError("Faces are looked for in pictures of a person, not of a style: leave --faces out.")
    clip = None if config.clip is None else open_clip(config.clip, base.device)
    dino = None if config.dino is None else open_dino(config.dino, base.device)
    return Encoders(config, base, wording, living, clip, dino), FaceJudge(photos) if config.faces else None
