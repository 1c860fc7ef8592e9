"""Captions as conditioning: each computed once, weighted where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import maquette
from maquette.core.denoiser import Conditioning
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.prompts.encode import encode
from maquette.stages.training.texts import Texts


@pytest.fixture(scope="module")
def pocket() -> BaseModel:
    return load("pocket")


def test_weights_in_captions_are_those_of_prompts(pocket: BaseModel) -> None:
    captions = ["a (red:1.5) robot", "a red robot", "robot, " * 60]
    texts = Texts(pocket, captions, 1, None, weighted=True)
    expected = encode(pocket, captions[0])
    assert torch.equal(texts(captions[:1]).tokens, expected.tokens)
    assert torch.allclose(texts(captions[1:]).tokens, pocket.encode_text(captions[1:]).tokens, atol=1e-6)
    assert texts(captions).tokens.shape[1] == 77  # a long caption ends after 75 tokens, as it does without weights
    plain = Texts(pocket, captions, 1, None)
    assert torch.equal(plain(captions[:1]).tokens, pocket.encode_text(captions[:1]).tokens)  # brackets are text


def test_weights_have_gradients_where_the_encoder_learns(pocket: BaseModel) -> None:
    encoder: Any = pocket.text_encoders[0]
    table = encoder.get_input_embeddings().weight.requires_grad_(True)
    texts = Texts(pocket, ["a (red:1.5) robot"], 1, lambda prompt: True, weighted=True)
    told = texts(["a (red:1.5) robot"])
    (gradient,) = torch.autograd.grad(told.tokens.square().sum(), [table])
    table.requires_grad_(False)
    assert gradient.abs().sum() > 0


def test_every_variant_of_a_caption_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled, dropped and mirrored: the text encoder and the VAE work before the first step only, each once."""
    from PIL import Image

    for number in range(2):
        Image.effect_noise((96, 64), 60 + number).convert("RGB").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"zkw robot, red, big, hat, {{a|b}} {number}")
    base = type(load("pocket"))
    encoded: list[str] = []
    original = base.encode_text

    def counted(self: BaseModel, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        encoded.extend(prompts)
        return original(self, prompts, clip_skip)

    monkeypatch.setattr(base, "encode_text", counted)
    options: dict[str, Any] = {
        "shuffle_captions": True,
        "keep_tokens": 1,
        "tag_dropout": 0.2,
        "caption_wildcards": True,
    }
    result = maquette.train(
        tmp_path, subject="zkw robot", out=tmp_path / "run", steps=6, batch_size=2, flip=True, random_crop=True,
        sample_prompts=[], caption_dropout=0.2, **options
    )  # fmt: skip
    assert result.steps == 6
    assert len(encoded) == len(set(encoded)) > 20
    entries = list((tmp_path / ".cache" / "latents").glob("*/*.latent"))
    assert len(entries) == 2 * 8 * 2  # photos, places where they are cut, mirror images
