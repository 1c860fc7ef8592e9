"""Captions of several windows on every family, with SDXL's two encoders and pooled vector."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

import maquette
from maquette import families
from maquette.formats import safetensors
from maquette.training.prompt_cache import PromptCache

LONG = "zkw robot " + ", ".join(f"tag {i} red" for i in range(40))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_windows_of_every_family(tmp_path: Path, family: str) -> None:
    base = families.load(tiny.write_folder(tmp_path / family, family, 4))
    texts = PromptCache(base, [LONG, "a robot"], 1, None)
    told = texts([LONG])
    windows = []
    for tokenizer in base.tokenizers:
        ids = tokenizer.encode(LONG)
        cut = [[tokenizer.bos, *ids[i : i + 75], tokenizer.eos] for i in range(0, len(ids), 75)]
        windows.append(torch.tensor([window + [tokenizer.pad] * (77 - len(window)) for window in cut]))
    alone = base.encode_ids(windows)
    assert torch.allclose(told.tokens, alone.tokens.reshape(1, -1, alone.tokens.shape[-1]), atol=1e-5)
    assert (told.pooled is None) == (family != "sdxl")
    if told.pooled is not None and alone.pooled is not None:
        assert torch.allclose(told.pooled, alone.pooled[:1], atol=1e-5)  # the first window's, as in sd-scripts
    assert texts(["a robot"]).tokens.shape[1] == 77


@pytest.mark.heavy
def test_sdxl_learns_from_long_and_short_captions_in_one_batch(tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "sdxl", "sdxl", 4)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, caption in enumerate([LONG, "zkw robot", "zkw robot, {red|blue} hat"]):
        Image.linear_gradient("L").rotate(90 * number).resize((64, 64)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(caption)
    result = maquette.train(
        photos, subject="zkw robot", base=str(base), out=tmp_path / "run", steps=2, batch_size=3, resolution=64,
        sample_prompts=[], caption_wildcards=True, text_encoder=True, prior_preservation=True,
    )  # fmt: skip
    assert result.file is not None
    found = safetensors.load(result.file)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert any(key.startswith("lora_te2") and ".lora_up" in key and found[key].any() for key in found)
