"""Captions as conditioning: each computed once, weighted where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import maquette
from maquette.core.denoiser import Conditioning
from maquette.core.seeds import seeded
from maquette.data.buckets import crop_box
from maquette.data.caption_options import CaptionOptions
from maquette.data.dataset import Photo
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.formats import safetensors
from maquette.prompts.captions import caption_chunks
from maquette.prompts.encode import encode
from maquette.training.batches import LatentDataset
from maquette.training.latents import EncodedPhoto
from maquette.training.prompt_cache import PromptCache
from maquette.training.train_result import TrainResult


@pytest.fixture(scope="module")
def pocket() -> BaseModel:
    return load("pocket")


def test_weights_in_captions_are_those_of_prompts(pocket: BaseModel) -> None:
    captions = ["a (red:1.5) robot", "a red robot", "robot, " * 60]
    texts = PromptCache(pocket, captions, 1, None, weighted=True, most_tokens=75)
    expected = encode(pocket, captions[0])
    assert torch.equal(texts(captions[:1]).tokens, expected.tokens)
    assert torch.allclose(texts(captions[1:]).tokens, pocket.encode_text(captions[1:]).tokens, atol=1e-5)
    assert texts(captions).tokens.shape[1] == 77  # a long caption ends after 75 tokens, as it does without weights
    plain = PromptCache(pocket, captions, 1, None)
    assert torch.equal(plain(captions[:1]).tokens, pocket.encode_text(captions[:1]).tokens)  # brackets are text


def test_weights_have_gradients_where_the_encoder_learns(pocket: BaseModel) -> None:
    encoder: Any = pocket.text_encoders[0]
    table = encoder.embeddings.token_embedding.weight.requires_grad_(True)
    texts = PromptCache(pocket, ["a (red:1.5) robot"], 1, lambda prompt: True, weighted=True)
    told = texts(["a (red:1.5) robot"])
    (gradient,) = torch.autograd.grad(told.tokens.square().sum(), [table])
    table.requires_grad_(False)
    assert gradient.abs().sum() > 0


class Counted:
    """Every caption that goes through a base's text encoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[str] = []
        base = type(load("pocket"))
        original = base.encode_text

        def counted(model: BaseModel, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
            self.prompts.extend(prompts)
            return original(model, prompts, clip_skip)

        monkeypatch.setattr(base, "encode_text", counted)


def folder_of(path: Path, captions: Sequence[str]) -> Path:
    from PIL import Image

    path.mkdir()
    for number, caption in enumerate(captions):
        Image.linear_gradient("L").rotate(90 * number).resize((96, 64)).save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(caption)
    return path


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    assert result.file is not None
    return safetensors.load(result.file)


def test_captions_that_vary_are_encoded_as_they_come_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = folder_of(tmp_path / "photos", [f"zkw robot, red, big, hat, {{a|b}} {number}" for number in range(2)])
    counted = Counted(monkeypatch)
    result = maquette.train(
        photos, subject="zkw robot", out=tmp_path / "run", steps=12, batch_size=2, flip_aug=True, random_crop=True,
        sample_prompts=[], caption_dropout=0.2, shuffle_captions=True, keep_tokens=1, tag_dropout=0.2,
        caption_wildcards=True,
    )  # fmt: skip
    assert result.steps == 12
    assert len(counted.prompts) == len(set(counted.prompts)) > 12
    entries = list((tmp_path / ".cache" / "latents").glob("*/*.latent"))
    assert len(entries) == 2 * 8 * 2  # photos, places where they are cut, mirror images


@pytest.mark.heavy
def test_a_resumed_run_reads_the_captions_that_an_uninterrupted_one_does(tmp_path: Path) -> None:
    places = "|".join(f"place {i}" for i in range(40))
    photos = folder_of(tmp_path / "photos", [f"zkw robot, {{{places}}}", "zkw robot, red, big " + "very, " * 60])
    options: dict[str, Any] = {
        "subject": "zkw robot", "batch_size": 2, "sample_prompts": [], "shuffle_captions": True,
        "caption_wildcards": True, "save_every_steps": 2, "lr_scheduler": "constant", "prior_preservation": True,
        "keep_state": True,
    }  # fmt: skip
    whole = maquette.train(photos, out=tmp_path / "whole", steps=4, **options)
    maquette.train(photos, out=tmp_path / "parts", steps=2, **options)
    parts = maquette.resume(tmp_path / "parts", steps=4)
    first, second = weights(whole), weights(parts)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_forty_alternatives_all_come_up() -> None:
    text = "{" + "|".join(f"place {i}" for i in range(40)) + "}, zkw robot"
    shown = Photo(
        Path("a"), "a", "0" * 64, (64, 64), text, "a.txt", options=CaptionOptions(wildcards=True),
        crop=crop_box((64, 64), (64, 64)),
    )  # fmt: skip
    photos = LatentDataset([shown], [[EncodedPhoto(torch.zeros(4, 2, 2), torch.zeros(4, 2, 2))]], 0, "instance")
    drawn = [photos.batches(step, 1, 1, seeded(0, step))[0].captions[0] for step in range(1600)]
    assert len(set(drawn)) == 40
    assert drawn[:9] == [photos.batches(step, 1, 1, seeded(0, step))[0].captions[0] for step in range(9)]


def test_captions_that_come_are_kept_up_to_a_bound(pocket: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = PromptCache(pocket, ["a robot"], 1, None, vary=True)
    one = texts(["a red robot"])
    assert torch.equal(one.tokens, pocket.encode_text(["a red robot"]).tokens) and texts.encoder_needed
    monkeypatch.setattr("maquette.training.prompt_cache.MOST_BYTES", 3 * one.tokens.numel() * 4)
    counted = Counted(monkeypatch)
    for prompt in ["a red robot", *"abcd", "a red robot", "d", "a robot"]:
        texts([prompt])
    assert counted.prompts == [*"abcd", "a red robot"]


LONG = "zkw robot " + ", ".join(f"tag {i} red" for i in range(40))  # 161 tokens or so


@pytest.mark.parametrize("most", [75, 150, 225])
def test_long_captions_are_read_whole_up_to_the_limit(pocket: BaseModel, most: int) -> None:
    ids = pocket.tokenizers[0].encode(LONG)
    assert 150 < len(ids) < 225
    texts = PromptCache(pocket, [LONG, "a robot"], 1, None, most_tokens=most)
    windows = [ids[i : i + 75] for i in range(0, min(most, len(ids)), 75)]
    told = texts([LONG]).tokens
    assert told.shape[1] == 77 * len(windows) == 77 * texts.windows(LONG)
    tokenizer = pocket.tokenizers[0]
    for place, window in enumerate(windows):
        padded = [tokenizer.bos, *window, tokenizer.eos, *[tokenizer.pad] * (75 - len(window))]
        alone = pocket.encode_ids([torch.tensor([padded])]).tokens
        assert torch.allclose(told[:, 77 * place : 77 * (place + 1)], alone, atol=1e-5)
    assert torch.equal(texts(["a robot"]).tokens, pocket.encode_text(["a robot"]).tokens)  # nothing is filled up
    assert texts.alike([LONG, "a robot", LONG]) == ([[1], [0, 2]] if most > 75 else [[0, 1, 2]])


@pytest.mark.heavy
def test_what_stands_late_in_a_long_caption_is_learned(tmp_path: Path) -> None:
    """Batches of long and short captions: a last word makes another file, unless max_token_length cuts it off."""
    files = {}
    for word in ("red", "blue"):
        photos = folder_of(tmp_path / word, [f"zkw robot {'very ' * 100} {word}", "zkw robot, hat"])
        for most in (75, 150):
            result = maquette.train(
                photos, subject="zkw robot", out=tmp_path / f"{word}{most}", steps=2, batch_size=2,
                max_token_length=most, sample_prompts=[],
            )  # fmt: skip
            files[word, most] = weights(result)
    for most, same in ((75, True), (150, False)):
        first, second = (files[word, most] for word in ("red", "blue"))
        assert all(torch.equal(first[key], second[key]) for key in first) is same


def test_weighted_long_captions_use_exactly_75_tokens_of_each_window(pocket: BaseModel) -> None:
    caption = "a (red:1.3) hat" + ", flower garden" * 29
    tokenizer = pocket.tokenizers[0]
    plain = tokenizer.encode("a red hat" + ", flower garden" * 29)
    chunks = caption_chunks(caption, tokenizer, 75, weighted=True)
    assert [chunk.tokens for chunk in chunks] == [plain[:75]]
    assert chunks[0].weights[:4] == [1.0, 1.3, 1.0, 1.0]
    chunks = caption_chunks(caption, tokenizer, 225, weighted=True)
    assert [chunk.tokens for chunk in chunks] == [plain[:75], plain[75:]]
    assert [chunk.tokens for chunk in caption_chunks("a BREAK b", tokenizer, 75, True)] == [
        tokenizer.encode("a BREAK b")
    ]
    assert caption_chunks("", tokenizer, 75)[0].tokens == []
    with pytest.raises(MaquetteError, match="has a weight that is no number"):
        caption_chunks("(a:1.2.3)", tokenizer, 75, weighted=True)
    for heavy in (f"(a:{'9' * 400})", "(" * 200 + "a", "(a:1001)"):
        with pytest.raises(MaquetteError, match=r"The caption '.* has the weight .*; at most 1000 is read"):
            caption_chunks(heavy, tokenizer, 75, weighted=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prior_preservation": True}, "prior_preservation works without regularization images"),
        ({"method": "textual-inversion"}, "textual-inversion has no use for regularization images"),
    ],
)
def test_regularization_images_beside_the_photos_are_never_idle(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    photos = folder_of(tmp_path / "photos", ["zkw robot"])
    folder_of(photos / "reg", ["a robot"])
    with pytest.raises(MaquetteError, match=rf"{says}, and .*reg holds some beside the photos"):
        maquette.train(photos, subject="zkw robot", out=tmp_path / "run", steps=1, sample_prompts=[], **options)
