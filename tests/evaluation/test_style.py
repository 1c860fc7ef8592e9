"""The panel of a style: things drawn in it, compared with the photos themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maquette.evaluation import Example, Panel, build_panel
from maquette.evaluation.drawing import decoded, draw_latents
from maquette.evaluation.measures import likeness, measure
from maquette.evaluation.panel import QUICK
from maquette.evaluation.words import STYLED, attributes_of, others_of
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.sd.spec import SD1


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("pocket")


@pytest.fixture(scope="module")
def panel(base: BaseModel) -> Panel:
    """Of a style whose pictures are negatives."""
    plan = build_panel(base, [Example(torch.zeros(3, 64, 64), "a photo of zkw cat", "0")], "zkw cat", size=QUICK).plan
    things = ["a cat", "a rose", "a house", "a car", "a camera", "a star"]
    drawn = decoded(base, draw_latents(base, plan, things, 700)) * 2 - 1
    photos = [Example(-own, f"{thing}, zkw style", thing) for own, thing in zip(drawn, things, strict=True)]
    return build_panel(base, photos, "zkw style", size=QUICK)


def likeness_of(panel: Panel, base: BaseModel, pixels: Tensor) -> float:
    latents = torch.cat([base.encode_images(own[None])[0].float() for own in pixels])
    like = panel.references
    return likeness(like.similarity(panel.eye.statistics(latents)), like.low, like.high).mean().item()


def test_things_are_asked_for_in_the_style_and_without_it(panel: Panel) -> None:
    plan = panel.plan
    assert min(plan.asked) >= 0, "every picture shows something that can be asked for"
    assert plan.subject_prompts == tuple(f"{prompt}, zkw style" for prompt in plan.class_prompts)
    assert set(plan.class_prompts) <= set(plan.attributes)
    assert {text for part in panel.rows.values() for text in part.prompts} >= {"a picture, zkw style", "a picture"}


def test_the_photos_themselves_are_the_references(panel: Panel, base: BaseModel) -> None:
    """Of another thing in the style, and not of the photos' own things."""
    shown = panel.references.pixels[0]
    assert shown.shape[0] == len(panel.every)
    class_pictures = decoded(base, panel.drawn.subject) * 2 - 1
    assert likeness_of(panel, base, -class_pictures) > 0.4
    assert likeness_of(panel, base, class_pictures) == pytest.approx(0, abs=0.1)
    assert panel.eye.recognition and all(part == "statistics" for _, _, part in panel.eye.ways)


def test_a_style_ought_to_make_pictures_alike(panel: Panel, base: BaseModel) -> None:
    found = measure(base, None, 1.0, panel)
    assert "diversity" not in found and {"likeness", "obedience", "edit_retention", "drift"} <= set(found)
    assert found["drift"] == 0 and found["obedience"] > 0.8


def test_what_is_asked_of_a_style_is_not_what_must_stay() -> None:
    assert attributes_of(SD1, style=True) == STYLED
    assert not set(STYLED) & {f"a {thing}" for thing in others_of(SD1, "style")}
