"""The repair of texts before CLIP's tokenizer, everywhere where a text becomes tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maquette import families
from maquette.core.vocabulary import ExtendedTokenizer
from maquette.families.base import BaseModel
from maquette.formats.tokenizer import EMBEDDED, Tokenizer, fix_text
from maquette.prompts.captions import encode_caption
from maquette.prompts.encode import encode
from maquette.stages import check

PAIRS = {
    "it’s a cat’s “hat”": "it's a cat's \"hat\"",
    "ｒｏｂｏｔ，　ｒｅｄ": "robot, red",
    "a ﬁne ﬂower": "a fine flower",
    "cafÃ© &amp; tea": "café & tea",
    "\ufeffrobot\x0b\x00": "robot",
    "half \ud800 a pair": "half \ufffd a pair",
    "&lt;b&gt;": "<b>",
}


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.mark.parametrize("text", PAIRS)
def test_a_text_is_read_as_what_was_meant(base: BaseModel, text: str) -> None:
    plain = PAIRS[text]
    tokenizer = Tokenizer()
    assert tokenizer.encode(text) == tokenizer.encode(plain) != []
    assert tokenizer.window(text) == tokenizer.window(plain)
    assert check.tokenizer()(text) == check.tokenizer()(plain)
    named = ExtendedTokenizer(tokenizer, len(tokenizer), {"robot": 2})
    assert named.encode(text) == named.encode(plain)
    with torch.no_grad():
        assert torch.equal(base.encode_text([text]).tokens, base.encode_text([plain]).tokens)
        assert torch.equal(encode(base, text).tokens, encode(base, plain).tokens)
        assert torch.equal(encode_caption(base, text, 1, 75).tokens, encode_caption(base, plain, 1, 75).tokens)


@pytest.mark.parametrize("text", ["", "a cat", "a\n\tcat  ", "<lora:x:1> (a:1.2) [b|c] #1", "~!@$%^*_+`{}|\\:\"';?./"])
def test_plain_texts_stay_as_they_are(text: str) -> None:
    import ftfy

    assert fix_text(text) == text == ftfy.fix_text(text)


def test_plain_texts_do_not_wait_for_the_repair() -> None:
    code = "import sys; from maquette.formats import tokenizer as t; t.fix_text('a'); sys.exit('ftfy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_vocabulary_is_read_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    text = EMBEDDED.read_text("utf-8")
    (file := tmp_path / "tokenizer.json").write_text(text, "utf-8")
    first = Tokenizer(file)
    assert Tokenizer(file, pad=0).pairs is first.pairs and first.pad == first.eos
    exchanged = json.loads(text)
    numbers = exchanged["model"]["vocab"]
    numbers["cat</w>"], numbers["dog</w>"] = numbers["dog</w>"], numbers["cat</w>"]
    file.write_text(json.dumps(exchanged), "utf-8")
    assert Tokenizer(file).encode("cat") == first.encode("dog") != first.encode("cat")
