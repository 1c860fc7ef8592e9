"""Textual inversion files of every program."""

from pathlib import Path

import pytest
import torch

from maquette.adapters import embeddings
from maquette.errors import MaquetteError
from maquette.formats import safetensors

VECTORS = torch.arange(2 * 768.0).reshape(2, 768)


def test_kohya(tmp_path: Path) -> None:
    safetensors.save({"emb_params": VECTORS}, tmp_path / "my-cat.safetensors")
    found = embeddings.load(tmp_path / "my-cat.safetensors")
    assert (found.name, found.family, len(found)) == ("my-cat", "sd1", 2)
    assert torch.equal(found.vectors[0], VECTORS)


def test_a1111(tmp_path: Path) -> None:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(VECTORS)},
        "name": "cat",
        "step": 9,
    }
    torch.save(content, tmp_path / "my-cat.pt")
    found = embeddings.load(tmp_path / "my-cat.pt")
    assert found.name == "my-cat" and torch.equal(found.vectors[0], VECTORS)


def test_diffusers_one_vector_with_its_own_token(tmp_path: Path) -> None:
    torch.save({"<my-cat>": VECTORS[0]}, tmp_path / "learned_embeds.bin")
    found = embeddings.load(tmp_path / "learned_embeds.bin")
    assert found.name == "<my-cat>" and torch.equal(found.vectors[0], VECTORS[:1])


def test_sdxl_has_two_encoders(tmp_path: Path) -> None:
    tensors = {"clip_l": torch.zeros(3, 768), "clip_g": torch.ones(3, 1280)}
    safetensors.save(tensors, tmp_path / "x.safetensors")
    found = embeddings.load(tmp_path / "x.safetensors")
    assert found.family == "sdxl" and [tuple(v.shape) for v in found.vectors] == [(3, 768), (3, 1280)]


@pytest.mark.parametrize("width, family", [(1024, "sd2"), (128, "unknown")])
def test_family_by_width(tmp_path: Path, width: int, family: str) -> None:
    safetensors.save({"emb_params": torch.zeros(1, width)}, tmp_path / "x.safetensors")
    assert embeddings.load(tmp_path / "x.safetensors").family == family


@pytest.mark.parametrize(
    "tensors, sentence",
    [
        ({"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2, 2)}, "is not a textual inversion embedding"),
        ({"emb_params": torch.zeros(0, 768)}, "is not a textual inversion embedding"),
        ({"emb_params": torch.full((2, 768), float("nan"))}, "holds NaN or infinite numbers; the embedding is damaged"),
        ({"emb_params": torch.zeros(2, 2, 2)}, "is not a textual inversion embedding"),
        ({"emb_params": torch.zeros(2, 2, dtype=torch.int64)}, "is not a textual inversion embedding"),
        ({"weight": torch.zeros(500, 768)}, "is not a textual inversion embedding"),
        ({"clip_l": torch.zeros(3, 768), "clip_g": torch.ones(2, 1280)}, "different number of vectors"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: dict, sentence: str) -> None:
    safetensors.save(tensors, tmp_path / "x.safetensors")
    with pytest.raises(MaquetteError, match=sentence):
        embeddings.load(tmp_path / "x.safetensors")
