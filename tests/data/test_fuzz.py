"""Ten thousand damaged and hostile inputs of each kind: a caption, a sentence of refusal, and never anything else."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.data.caption_edit import Edits, name_subject
from maquette.data.caption_options import CaptionOptions, vary
from maquette.data.captions import caption_of_class, decode
from maquette.data.kohya_names import agrees, kohya_name
from maquette.data.kohya_toml import read_dataset_file
from maquette.data.metadata import read_metadata
from maquette.errors import MaquetteError
from maquette.formats.tokenizer import Tokenizer
from maquette.parsing import parse_toml
from maquette.prompts.captions import caption_chunks

MOST_SECONDS = 30.0  # of the thread's own time: a pattern that tries every way would take hours
pytestmark = pytest.mark.heavy
often = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
TOKENIZER = Tokenizer()

pieces = st.sampled_from(
    ["{", "}", "|", "{{", "}}", "(", ")", "[", "]", ":", ":1.2)", ",", "\n", "\r", " ", "BREAK", "\\"]
)
words = st.text(max_size=12) | st.sampled_from(["zkw robot", "|||", ";;", "a photo of", "w" * 300])
captions = st.lists(pieces | words, max_size=30).map("".join)


@contextmanager
def quick() -> Iterator[None]:
    """What is refused is refused in a sentence, and in time."""
    began = time.thread_time()
    try:
        yield
    except MaquetteError as error:
        assert str(error).strip()
    assert time.thread_time() - began < MOST_SECONDS


@often
@given(st.binary(max_size=300) | captions.map(lambda text: text.encode("utf-16", "surrogatepass")))
def test_bytes_of_caption_files(data: bytes) -> None:
    with quick():
        text, fallback = decode(data, "The caption a.txt")
        assert "\0" not in text and fallback in (None, "Windows-1252")


@often
@given(captions, st.booleans(), st.booleans(), st.floats(0, 1), st.integers(0, 3), st.sampled_from(["", "|||", ";;"]))
def test_captions_that_vary(
    text: str, wildcards: bool, shuffle: bool, dropout: float, keep: int, separator: str
) -> None:
    options = CaptionOptions(
        wildcards=wildcards, shuffle=shuffle, tag_dropout=dropout, keep_tokens=keep, keep_tokens_separator=separator
    )
    with quick():
        drawn = vary(text, options, random.Random(0))
        assert drawn == " ".join(drawn.split()) == vary(text, options, random.Random(0))
        chunks = caption_chunks(drawn.encode("utf-8", "replace").decode(), TOKENIZER, 225, weighted=True)
        assert 1 <= len(chunks) <= 3 and all(len(c.tokens) == len(c.weights) <= 75 for c in chunks)


@often
@given(captions, captions, captions)
def test_edits(text: str, first: str, second: str) -> None:
    edits = Edits(((" ".join(first.split()) or "x", second),), (second,), (first,), first, second)
    with quick():
        for line in edits.apply_to_lines(" ".join(text.split())).split("\n"):
            assert line == " ".join(line.split())
        name_subject(text, " ".join(first.split()))
        caption_of_class(text, " ".join(first.split()) or "x")


@often
@given(st.text(max_size=40) | st.builds("{}_{}".format, st.integers(), words), words)
def test_names_of_folders(name: str, subject: str) -> None:
    with quick():
        found = kohya_name(name, subject)
        assert found is None or (isinstance(found[0], int) and isinstance(agrees(found[1], subject), bool))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["file_name", "image", "text", "caption", "tags", "a", "a.png"])
entries = st.dictionaries(names, values | st.just("a.png"), max_size=5)
documents = st.dictionaries(st.text(max_size=8) | names, entries, max_size=4) | st.lists(entries, max_size=4) | values


@often
@given(documents, st.sampled_from([".json", ".jsonl", ".csv"]), st.booleans())
def test_metadata(tmp_path_factory: pytest.TempPathFactory, document: Any, suffix: str, cut: bool) -> None:
    file = tmp_path_factory.getbasetemp() / f"metadata{suffix}"
    text = json.dumps(document)
    file.write_text(text[: len(text) // 2] if cut else text, encoding="utf-8")
    with quick():
        metadata = read_metadata(file)
        caption = metadata.caption(file.parent / "a.png")
        assert caption is None or caption.encode() is not None
        metadata.unused()


KEYS = """resolution enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps batch_size num_repeats flip_aug
caption_extension keep_tokens caption_dropout_rate class_tokens is_reg image_dir metadata_file conditioning_data_dir
color_aug a.b x"""
VALUES = """1 -1 0 512 1e999 nan -inf true false "man" "." "/" "" [512,512] [[[[[[ {a=1} "\\u0000" 1979-05-27 'x
"../../.." """
keys = st.sampled_from([*KEYS.split(), "a" + ".a" * 40])
settings_of = st.sampled_from([*VALUES.split(), "9" * 30, "9" * 5000, "[" * 2000])
lines = st.builds("{} = {}".format, keys, settings_of) | st.sampled_from(
    ["[general]", "[[datasets]]", "[[datasets.subsets]]", "[datasets]", "[[general]]", "", "#", "]]", '[["a"]]']
)


@often
@given(st.lists(lines, max_size=12))
def test_data_set_files(tmp_path_factory: pytest.TempPathFactory, text: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp() / "sets"
    (folder / "man").mkdir(parents=True, exist_ok=True)
    file = folder / "set.toml"
    file.write_text("\n".join([*text, "[[datasets]]", "[[datasets.subsets]]", 'image_dir = "man"']), encoding="utf-8")
    with quick():
        read_dataset_file(file, "zkw robot")


@often
@given(st.lists(lines | st.text(max_size=10), max_size=10).map("\n".join))
def test_toml(text: str) -> None:
    with quick():
        parse_toml(text, "a.toml")


def test_long_inputs_take_no_more_than_their_length_asks() -> None:
    for text in (
        "{" * 50_000 + "}" * 50_000,
        "{a|" * 30_000,
        "|" * 90_000,
        ", tag" * 18_000,
        "the " * 24_000,
        "(" * 99_000,
    ):
        with quick():
            vary(text, CaptionOptions(wildcards=True, shuffle=True), random.Random(0))
            Edits((("the", "a"),), ("tag",), ("x",), "p", "s").apply(text)
            caption_of_class(text, "zkw the")
    for text in ("a." * 900_000 + "b = 1", "a" * 1_900_000 + " = 1", '"a".' * 400_000 + "b = 1", "a" + " " * 1_900_000):
        with quick():
            parse_toml(text, "a.toml")
