"""What the untrained base is asked in a subject's stead."""

from __future__ import annotations

import pytest

from maquette.data.wording import Wording


@pytest.mark.parametrize(
    ("subject", "kind", "caption", "instead"),
    [
        ("zkw style", None, "a cat on grass, zkw style", "a cat on grass"),
        ("zkw style", None, "zkw style, a cat", "a cat"),
        ("zkw style", None, "A cat in the ZKW style", "A cat"),
        ("zkw style", None, "a picture, zkw style", "a picture"),
        ("zkw style", None, "zkw style", "a picture"),
        ("zkw style", None, "a cat", "a cat"),
        ("zkw watercolor", "style", "a cat in zkw watercolor", "a cat in watercolor"),
        ("zkw style", "object", "a photo of zkw style", "a photo of a style"),
        ("zkw watercolor", None, "a photo of zkw watercolor", "a photo of a watercolor"),
    ],
)
def test_the_base_is_asked_without_the_rare_word(subject: str, kind: str | None, caption: str, instead: str) -> None:
    wording = Wording.for_subject(subject, kind)  # type: ignore[arg-type]
    assert wording.caption_instead(caption) == instead
    assert wording.style is (kind == "style" or (kind is None and subject == "zkw style"))


def test_words_of_things_and_of_styles() -> None:
    thing, style = Wording.for_subject("zkw old robot"), Wording.for_subject("zkw watercolor", "style")
    assert thing.of("in the snow") == "a photo of zkw old robot in the snow"
    assert (
        thing.instead("in the snow") == "a photo of an old robot in the snow"
        and thing.of() == "a photo of zkw old robot"
    )
    assert style.of("a cat") == "a cat, zkw watercolor" and style.instead("a cat") == "a cat, watercolor"
    assert style.of() == "a picture, zkw watercolor"
