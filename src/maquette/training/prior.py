"""Prompts of prior preservation without pictures: those for which predictions are held to the untrained base's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..config import TrainConfig
from ..data.wording import Wording
from ..errors import MaquetteError
from .batches import Batch


@dataclass(frozen=True)
class Prior:
    """Prompts for which the model must go on predicting what it did before training."""

    wording: Wording
    scenes: Mapping[str, str]  # a caption known before training -> what the base is asked instead
    others: Sequence[str]  # the user's further prompts
    share: float  # of each batch

    @staticmethod
    def of(config: TrainConfig, subject: str | None, captions: Sequence[str]) -> Prior | None:
        """None where the run does not ask for it. Raises MaquetteError when it does and there is no class word."""
        if not config.prior_preservation:
            return None
        if subject is None:
            raise MaquetteError("prior_preservation needs the class word: name the subject (--subject 'ohwx man').")
        wording = Wording.for_subject(subject, config.kind)
        instead = {caption: wording.caption_instead(caption) for caption in captions}
        scenes = {caption: scene for caption, scene in instead.items() if scene != caption}
        return Prior(wording, scenes, config.prior_prompts, config.prior_share)

    @property
    def class_prompt(self) -> str:
        """ "a photo of a robot"; of a style "a picture"."""
        return self.wording.instead()

    @property
    def prompts(self) -> list[str]:
        """Every prompt that can be asked for, but for scenes of captions that vary."""
        return [self.class_prompt, *self.scenes.values(), *self.others]

    def part(self, batch: Batch, random: torch.Generator) -> tuple[Batch, list[str]]:
        """The photos of the batch to hold, at least one, and the prompt for each.

        In turn the photo's own scene with the class in it (of a style: without the style), the class alone, and one of
        the user's prompts. Which photo gets which is drawn, as the batch's order is not: photos of one shape come in
        the order of the epoch.
        """
        count = max(1, math.ceil(self.share * len(batch)))
        chosen = torch.randperm(len(batch), generator=random)[:count].tolist()
        first = int(torch.randint(3, (), generator=random))
        prompts = [self._prompt(first + i, batch.captions[k], random) for i, k in enumerate(chosen)]
        return batch.rows(chosen), prompts

    def _prompt(self, turn: int, caption: str, random: torch.Generator) -> str:
        kinds = 3 if self.others else 2
        if turn % kinds == 0:
            scene = self.scenes.get(caption) or self.wording.caption_instead(caption)
            return scene if scene != caption else self.class_prompt
        if turn % kinds == 1:
            return self.class_prompt
        return self.others[int(torch.randint(len(self.others), (), generator=random))]
