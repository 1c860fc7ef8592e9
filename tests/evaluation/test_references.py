"""What drawings of the subject are compared with: its photos, set before the background that the prompt asks for."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maquette.demo.mascot import SUBJECT
from maquette.evaluation import Example, Panel, build_panel
from maquette.evaluation.cutouts import set_before, subject_outlines
from maquette.evaluation.measures import likeness
from maquette.evaluation.panel import QUICK
from maquette.evaluation.references import References, make_references, turns
from maquette.evaluation.words import PLACES, POCKET_COLOURS, STYLES, changes_look
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import judge


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("pocket")


def robot(colour: str, angle: float = 0.0) -> Tensor:
    """A blocky robot of no photo's, (3, 64, 64) in [-1, 1], before a named colour."""
    court = judge()
    behind = court.colours[court.colour_names.index(colour)] * 2 - 1
    picture = behind[:, None, None].expand(3, 64, 64).clone()
    left = 14 + int(angle)
    picture[:, 28:56, left : left + 34] = torch.tensor([0.1, 0.6, 0.6])[:, None, None]
    picture[:, 10:28, left + 6 : left + 28] = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    picture[:, 16:22, left + 12 : left + 18] = 1.0
    return picture


@pytest.fixture(scope="module")
def panel(base: BaseModel) -> Panel:
    photos = [
        Example(robot(colour, i), f"a photo of {SUBJECT}", str(i)) for i, colour in enumerate(["pink", "cyan"] * 2)
    ]
    return build_panel(base, photos, SUBJECT, size=QUICK)


def likeness_of(panel: Panel, base: BaseModel, pictures: list[Tensor]) -> float:
    """Of pictures in the place of the plan's."""
    latents = torch.cat([base.encode_images(picture[None])[0].float() for picture in pictures])
    like = panel.references
    return likeness(like.similarity(panel.eye.statistics(latents)), like.low, like.high).mean().item()


def test_the_subject_before_the_asked_background_is_most_like_it(panel: Panel, base: BaseModel) -> None:
    """Copies of the photos, whose backgrounds nobody asked for, and pictures of the class are not."""
    words = [panel.plan.attributes[which] if which >= 0 else "" for which in panel.plan.asked]
    colours = [next((name for name in judge().colour_names if name in word), "pink") for word in words]
    asked = likeness_of(panel, base, [robot(colour, 1.5) for colour in colours])
    copied = likeness_of(panel, base, [robot("pink", 1.5)] * len(colours))
    others = [base.decode(latent[None])[0].float() * 2 - 1 for latent in panel.drawn.subject]
    assert asked > 0.8 and copied < 0.5
    assert likeness_of(panel, base, others) == pytest.approx(0, abs=0.1)


def test_each_asked_background_has_references_of_its_own(panel: Panel) -> None:
    like = panel.references
    asked = [which for which in panel.plan.asked if which >= 0]
    assert like.pixels.shape == (len(set(asked)), QUICK.references, 3, 64, 64)
    assert like.compared == [i for i, which in enumerate(panel.plan.asked) if which >= 0]
    names = judge().name_backgrounds((like.pixels[:, 0].clamp(-1, 1) + 1) / 2)
    for row, which in enumerate(dict.fromkeys(asked)):
        assert f" {names[row]} background" in panel.plan.attributes[which]
    eyes = like.pixels[:, 0, :, 17:21, 27:31]
    assert (eyes - 1).abs().max() < 0.1, "the subject is the photo's, before every background"


def test_pictures_that_ought_to_look_otherwise_are_not_compared(base: BaseModel) -> None:
    """A photo before an oil painting is no example of the subject as an oil painting."""
    photos = [Example(robot(colour), f"a photo of {SUBJECT}", colour) for colour in ("pink", "cyan")]
    attributes = ["on a red background", "as an oil painting"]
    panel = build_panel(base, photos, SUBJECT, attributes=attributes, size=QUICK)
    assert {panel.plan.asked[i] for i in panel.references.compared} == {0} < set(panel.plan.asked)
    assert len(panel.references.pixels) == 1


def test_a_single_attribute_cannot_be_told_from_others(base: BaseModel) -> None:
    with pytest.raises(ValueError, match="two attributes"):
        build_panel(base, [Example(robot("pink"), "x", "a")], SUBJECT, attributes=["on a red background"], size=QUICK)


def test_places_leave_the_subject_as_it_is() -> None:
    assert not any(map(changes_look, (*PLACES, *POCKET_COLOURS))) and all(map(changes_look, STYLES))


def test_pictures_without_an_attribute_are_not_compared(panel: Panel) -> None:
    statistics = panel.look.statistics.clone()
    bare = [i for i, which in enumerate(panel.plan.asked) if which < 0]
    before = panel.references.similarity(statistics)
    statistics[bare] += 100.0
    assert torch.equal(panel.references.similarity(statistics), before) and len(bare) > 0


def test_a_mask_says_where_the_subject_is(base: BaseModel, panel: Panel) -> None:
    """Of a photo whose own border tells nothing."""
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = subject_outlines(robot("pink")[None])[0]
    photo = Example(set_before(robot("pink"), mask, noise), f"a photo of {SUBJECT}", "a")
    masked = build_panel(base, [replace(photo, mask=mask)], SUBJECT, size=QUICK).references
    whole = build_panel(base, [photo], SUBJECT, size=QUICK).references
    around = mask[0] == 0
    assert (whole.pixels[0, 0] - photo.pixels).abs().max() == 0
    assert (masked.pixels[0, 0][:, around] - noise[:, around]).abs().mean() > 0.5
    assert torch.equal(masked.pixels[0, 0][:, mask[0] == 1], photo.pixels[:, mask[0] == 1])


def test_a_single_photo_has_a_scale_too(base: BaseModel) -> None:
    like: References = build_panel(base, [Example(robot("pink"), "x", "a")], SUBJECT, size=QUICK).references
    assert like.high == pytest.approx((1 + like.low) / 2) and like.low < 1


def test_likeness_stays_small_where_references_are_hardly_alike(base: BaseModel) -> None:
    """Where they are about as like each other as the class is to them, a step from the one to the other is no unit."""
    photos = [Example(robot("pink"), "x", "a"), Example(robot("cyan"), "x", "b")]
    drawn = torch.zeros(2, 4, 8, 8)
    found, of_class = torch.tensor([[1.0, 0.0], [0.6, 1.0]]), torch.tensor([[0.0, 1.0], [0.2, 1.1], [-0.2, 0.9]])
    like = make_references(lambda latents: found, base, photos, [-1, -1], 2, drawn, of_class[:2], of_class[2:])
    assert like.low == pytest.approx(-0.467, abs=0.001), "and between the references it is -0.118"
    assert like.high == pytest.approx((1 + like.low) / 2)


def test_photos_whose_mask_shows_nothing_are_no_references(base: BaseModel) -> None:
    """As those are whose subject lies beside the square that is looked at."""
    nothing = torch.zeros(1, 64, 64)
    photos = [Example(robot("pink", 2.0 * i), "x", str(i), mask=nothing) for i in range(3)]
    seen = Example(robot("cyan"), "x", "seen", mask=subject_outlines(robot("cyan")[None])[0])
    like = build_panel(base, [*photos, seen], SUBJECT, size=QUICK).references
    assert like.pixels.shape[1] == 1 and (like.pixels[:, 0, :, 17:21, 27:31] - 1).abs().max() < 0.1
    whole = build_panel(base, photos, SUBJECT, size=QUICK).references
    assert whole.pixels.shape[1] == 3 and (whole.pixels[:, :, :, 17, 31] - 1).abs().max() < 0.1


def test_photos_take_turns() -> None:
    assert turns(3, 5) == [0, 1, 2, 0, 1]
    assert turns(10, 4) == [0, 2, 5, 7]
    assert turns(4, 4) == [0, 1, 2, 3]
