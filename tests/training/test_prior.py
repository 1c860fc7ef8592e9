"""Which prompts are held to the base, for which photos."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from maquette.config import TrainConfig
from maquette.core.seeds import seeded
from maquette.errors import MaquetteError
from maquette.training.batches import Batch
from maquette.training.prior import Prior

CAPTIONS = ["a photo of zkw robot on a red background", "a photo of zkw robot", "the wall alone"]


def batch(mask: bool = False) -> Batch:
    x0 = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 4, 2, 2)
    return Batch(x0, [5, 6, 7], CAPTIONS, torch.arange(18).reshape(3, 6), x0[:, :1] if mask else None)


def prior(**settings: object) -> Prior:
    config = TrainConfig.parse({"photos": ".", "prior_preservation": True, **settings}, "the test")
    made = Prior.of(config, "zkw robot", CAPTIONS)
    assert made is not None
    return made


def drawn(made: Prior, times: int = 300) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for step in range(times):
        held, prompts = made.part(batch(), seeded(1, "step", step))
        found.update(zip(held.captions, prompts, strict=True))
    return found


def test_a_photo_is_held_in_its_own_scene_and_as_the_plain_class() -> None:
    found = drawn(prior())
    assert set(found) == {
        (CAPTIONS[0], "a photo of a robot on a red background"),
        (CAPTIONS[0], "a photo of a robot"),
        (CAPTIONS[1], "a photo of a robot"),
        (CAPTIONS[2], "a photo of a robot"),  # the subject is not named there
    }


def test_each_kind_of_prompt_has_its_turn() -> None:
    found = drawn(prior(prior_prompts=["a cat", "a dog"]))
    others = sum(n for (_, prompt), n in found.items() if prompt in ("a cat", "a dog"))
    assert others == 300  # one of the three photos in each of 300 batches
    assert min(n for (_, prompt), n in found.items() if prompt in ("a cat", "a dog")) > 20


def test_a_share_of_the_batch_keeps_rows_together() -> None:
    made = prior(prior_share=0.5)
    for step in range(20):
        held, prompts = made.part(batch(mask=True), seeded(2, "step", step))
        assert len(held) == len(prompts) == 2  # half of three, rounded up
        for row, photo in enumerate(held.photos):
            k = photo - 5
            assert held.captions[row] == CAPTIONS[k] and held.x0[row].eq(k).all() and held.time_ids[row, 0] == 6 * k
            assert held.mask is not None and held.mask[row].eq(k).all()


def test_no_prior_and_no_class_word() -> None:
    assert Prior.of(TrainConfig.parse({"photos": "."}, "the test"), None, CAPTIONS) is None
    with pytest.raises(MaquetteError, match="class word"):
        Prior.of(TrainConfig.parse({"photos": ".", "prior_preservation": True}, "the test"), None, CAPTIONS)
    with pytest.raises(MaquetteError, match="prior_prompts need prior_preservation"):
        TrainConfig.parse({"photos": ".", "prior_prompts": ["a cat"]}, "the test")


def test_a_style_is_held_where_its_words_are_not() -> None:
    """What its photos show is asked for without the style, and never "a photo of a style"."""
    captions = ["a cat on grass, zkw style", "a rose in zkw style"]
    config = TrainConfig.parse({"photos": ".", "kind": "style", "prior_preservation": True}, "the test")
    made = Prior.of(config, "zkw style", captions)
    assert made is not None and made.prompts == ["a picture", "a cat on grass", "a rose"]
