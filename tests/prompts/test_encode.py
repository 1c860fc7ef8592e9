from __future__ import annotations

from typing import Any

import pytest
import torch

from maquette import families
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.prompts import parse_attention
from maquette.prompts.encode import Prompt, encode, split_chunks


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


def test_plain_prompt_is_what_the_base_encodes(base: BaseModel) -> None:
    text = "a photo of a cat on a red background"
    assert torch.equal(encode(base, text).tokens, base.encode_text([text]).tokens)
    assert torch.equal(encode(base, "").tokens, base.encode_text([""]).tokens)
    assert not torch.allclose(encode(base, text, clip_skip=2).tokens, encode(base, text).tokens)


def test_emphasis_modes(base: BaseModel) -> None:
    z = encode(base, "a cat").tokens  # start, "a", "cat", end …
    plain = encode(base, "a (cat:1.5)", emphasis="No norm").tokens
    expected = z.clone()
    expected[:, 2] *= 1.5
    assert torch.allclose(plain, expected, atol=1e-6)
    original = encode(base, "a (cat:1.5)").tokens
    assert torch.allclose(original, expected * (z.mean() / expected.mean()), atol=1e-5)
    assert original.mean().item() == pytest.approx(z.mean().item(), rel=1e-4)
    assert torch.equal(encode(base, "a (cat:1.5)", emphasis="Ignore").tokens, z)
    literal = encode(base, "a (cat:1.5)", emphasis="None").tokens
    assert torch.equal(literal, base.encode_text(["a (cat:1.5)"]).tokens)


def test_weight_zero_blanks_the_token_rows(base: BaseModel) -> None:
    tokens = encode(base, "a (cat:0) b", emphasis="No norm").tokens
    assert tokens[0, 2].abs().max() == 0
    assert tokens[0, 3].abs().max() > 0


def test_bad_weight_names_the_prompt(base: BaseModel) -> None:
    with pytest.raises(MaquetteError, match=r"a \(cat:1\.2\.3\).*no number"):
        encode(base, "a (cat:1.2.3)")


def chunk_lengths(base: BaseModel, prompt: str) -> list[int]:
    return [len(chunk.tokens) for chunk in split_chunks(parse_attention(prompt), base.tokenizers[0])]


def test_chunks_of_75_tokens(base: BaseModel) -> None:
    assert chunk_lengths(base, "") == [0]
    assert chunk_lengths(base, "cat " * 75) == [75]
    assert chunk_lengths(base, "cat " * 76) == [75, 1]
    assert chunk_lengths(base, "a cat BREAK a dog") == [2, 2]
    assert encode(base, "cat " * 76).tokens.shape[1] == 154


def test_a_full_chunk_ends_at_a_near_comma(base: BaseModel) -> None:
    assert chunk_lengths(base, "cat " * 60 + ", " + "dog " * 20) == [61, 20]
    assert chunk_lengths(base, "cat " * 40 + ", " + "dog " * 40) == [75, 6]  # too far back
    assert chunk_lengths(base, "cat " * 75 + ", dog") == [75, 2]


def test_each_chunk_is_encoded_by_itself(base: BaseModel) -> None:
    two = encode(base, "a cat BREAK a dog").tokens
    # Two at once are added up in another order: ten roundings (2^-23) of numbers up to ten.
    assert torch.allclose(two[:, :77], encode(base, "a cat").tokens, atol=1e-5)
    assert torch.allclose(two[:, 77:], encode(base, "a dog").tokens, atol=1e-5)


def test_schedule_and_and(base: BaseModel) -> None:
    prompt = Prompt(base, "a [cat:dog:0.5] AND a star :-0.5", 4, batch=3)
    cat, dog, star = (encode(base, text).tokens[0] for text in ("a cat", "a dog ", " a star"))
    for step, animal in ((1, cat), (2, cat), (3, dog), (4, dog)):
        (first, weight), (second, other) = prompt.at(step)
        assert (weight, other) == (1.0, -0.5)
        assert len(first) == len(second) == 3
        assert torch.equal(first.tokens[2], animal)
        assert torch.equal(second.tokens[0], star)


def test_the_negative_prompt_knows_no_and(base: BaseModel) -> None:
    assert len(Prompt(base, "a AND b", 4, composable=False).at(1)) == 1


def test_texts_of_one_schedule_share_a_mean_and_a_length(base: BaseModel) -> None:
    """As A1111 encodes them: together, each as often as it stands in the schedule, shorter ones with empty chunks."""
    prompt = Prompt(base, "a [cat:(dog:4):3]", 4, counting="exact")  # three steps, one step; two texts
    cat, dog = encode(base, "a cat"), encode(base, "a dog")
    plain = torch.cat([cat.tokens, encode(base, "a (dog:4)", emphasis="No norm").tokens])
    ratio = torch.cat([cat.tokens, dog.tokens]).double().mean() / plain.double().mean()
    assert abs(ratio - 1) > 0.02
    close = {"rtol": 5e-3, "atol": 1e-4}  # float32 means of numbers that are 5000 times as large
    assert torch.allclose(prompt.at(1)[0][0].tokens, plain[:1] * ratio.float(), **close)
    assert torch.allclose(prompt.at(4)[0][0].tokens, plain[1:] * ratio.float(), **close)
    alternating = Prompt(base, "a [cat|(dog:4)|(dog:4)]", 3)
    thrice = [torch.cat([a, b, b]).double().mean() for a, b in ((cat.tokens, dog.tokens), (plain[:1], plain[1:]))]
    assert abs(thrice[0] / thrice[1] - ratio) > 0.02
    assert torch.allclose(alternating.at(1)[0][0].tokens, plain[:1] * (thrice[0] / thrice[1]).float(), **close)
    uneven = Prompt(base, "a cat [:BREAK a dog:2]", 4)
    first, second = (uneven.at(step)[0][0].tokens for step in (1, 4))
    assert first.shape == second.shape == (1, 154, cat.tokens.shape[-1])
    assert torch.allclose(first[:, 77:], encode(base, "").tokens, atol=1e-5)


def test_calls_and_steps(base: BaseModel) -> None:
    def drawn(call: int, step: int, **how: Any) -> bool:
        return bool(torch.equal(Prompt(base, "[cat:dog:0.5]", 4, **how).at_call(call, step)[0][0].tokens, cat))

    cat = encode(base, "cat").tokens
    assert [drawn(call, call + 1) for call in range(4)] == [True, True, True, False]
    assert [drawn(call, call + 1, counting="exact") for call in range(4)] == [True, True, False, False]
    assert [drawn(call, 1, calls_per_step=2) for call in range(8)] == [True] * 5 + [False] * 3


def test_a_weight_without_bound_is_refused(base: BaseModel) -> None:
    with pytest.raises(MaquetteError, match="The brackets around 'a' multiply to inf: take some away"):
        encode(base, "(" * 9000 + "a")
    assert encode(base, "(" * 9000 + "a", emphasis="None").tokens.shape[1] > 77
