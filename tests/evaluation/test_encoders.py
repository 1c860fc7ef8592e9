"""CLIP and DINO from local folders: what they are shown, and the DreamBooth paper's measures by them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from maquette.errors import MaquetteError
from maquette.evaluation import Example, build_panel, dreambench, measure
from maquette.evaluation.dreambench import alike, apart, prompts
from maquette.evaluation.encoders import Seen, open_clip, open_dino
from maquette.evaluation.measures import likeness
from maquette.evaluation.panel import QUICK
from maquette.evaluation.tuned import tuned
from maquette.families import load
from maquette.families.pocket.spec import WEIGHTS

CPU = torch.device("cpu")
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "model"
    text = {**SMALL, "vocab_size": 49408, "max_position_embeddings": 77}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    for file in (WEIGHTS / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino") / "model"
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8)).save_pretrained(folder)
    told = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3, "do_center_crop": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def test_what_an_encoder_is_shown() -> None:
    pixels = torch.zeros(1, 3, 20, 40)
    pixels[..., :10] = pixels[..., 30:] = 1.0  # at the left and right, which the middle leaves out
    seen = Seen(10, 10, (0.5,) * 3, (0.25,) * 3)(pixels)
    assert seen.shape == (1, 3, 10, 10)
    assert float(seen[..., 2:8].abs().sub(2.0).abs().max()) < 0.05  # (0 - 0.5) / 0.25


def test_clip_and_dino_give_unit_vectors_and_texts_count_the_pictures(clip: Path, dino: Path) -> None:
    pixels = torch.rand((3, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    opened = open_clip(clip, CPU)
    assert opened.images(pixels).shape == (3, 8) and opened.texts(["a cat", "a dog"]).shape == (2, 8)
    assert opened.texts(["a cat " * 200]).norm(dim=1).item() == pytest.approx(1.0, abs=1e-5)
    other = open_dino(dino, CPU)
    assert (other.seen.edge, other.seen.crop, other.seen.mean) == (40, 32, (0.5, 0.5, 0.5))
    assert other.images(pixels).norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_a_folder_of_another_model_is_told(clip: Path, dino: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"--clip .* is no folder with a model of transformers \(config\.json"):
        open_clip(tmp_path, CPU)
    with pytest.raises(MaquetteError, match=r"--clip .* holds a model of the type vit, not clip"):
        open_clip(dino, CPU)
    with pytest.raises(MaquetteError, match=r"--dino .* holds a model of the type clip, not vit or dinov2"):
        open_dino(clip, CPU)
    broken = tmp_path / "broken"
    shutil.copytree(dino, broken)
    (broken / "model.safetensors").write_bytes(b"x")
    with pytest.raises(MaquetteError, match=r"broken cannot be opened: "):
        open_dino(broken, CPU)


def test_mean_cosines() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert alike(a, a) == pytest.approx(0.5)
    assert apart(a) == pytest.approx(0.0)
    assert apart(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1 / 3)


def test_dreambench_has_25_prompts_for_things_and_25_for_what_lives() -> None:
    things, living = prompts("zkw can", False), prompts("zkw dog", True)
    assert len(set(things)) == len(set(living)) == 25
    assert things[0] == "a zkw can in the jungle" and living[-1] == "a cube shaped zkw dog"
    assert sum("wearing" in p or "outfit" in p for p in living) == 10
    assert not any("wearing" in p for p in things)


def test_likeness_by_an_encoder(dino: Path) -> None:
    """What the base draws of the class has 0, references among themselves 1; the other measures are as without."""
    base, encoder = load("pocket"), open_dino(dino, CPU)
    random = torch.Generator().manual_seed(0)
    photos = [
        Example(torch.rand((3, 64, 64), generator=random) * 2 - 1, "a photo of zkw cat", str(i)) for i in range(3)
    ]
    panel = build_panel(base, photos, "zkw cat", size=QUICK, encoder=encoder)
    plain = build_panel(base, photos, "zkw cat", size=QUICK)
    assert panel.references.unit.shape[-1] == SMALL["hidden_size"] != plain.references.unit.shape[-1]
    like = panel.references
    seen, usual = measure(base, None, 1.0, panel), measure(base, None, 1.0, plain)
    assert seen.pop("likeness") != usual.pop("likeness") and seen == usual
    assert panel.describe is not None
    of_class = likeness(like.similarity(panel.describe(panel.drawn.subject)), like.low, like.high)
    assert of_class.mean().item() == pytest.approx(0.0, abs=1e-3)
    alike = torch.einsum("ard,asd->ars", like.unit, like.unit)
    assert like.high == pytest.approx(alike[:, ~torch.eye(3, dtype=torch.bool)].mean().item(), abs=1e-5)
    assert like.high > like.low


def test_a_model_without_tokenizer_or_some_weights_is_told(clip: Path, dino: Path, tmp_path: Path) -> None:
    """transformers would go on, with words that are all unknown and weights that are random."""
    wordless = Path(shutil.copytree(clip, tmp_path / "wordless"))
    (wordless / "tokenizer.json").unlink()
    with pytest.raises(MaquetteError, match=r"--clip .*wordless has no tokenizer \(tokenizer\.json, or vocab\.json"):
        open_clip(wordless, CPU)
    half = Path(shutil.copytree(dino, tmp_path / "half"))
    kept = {name: value for name, value in load_file(half / "model.safetensors").items() if "pooler" not in name}
    save_file(kept, half / "model.safetensors", {"format": "pt"})
    assert open_dino(half, CPU).images(torch.zeros(1, 3, 32, 32)).shape == (1, 16), "DINO's own files have no pooler"
    save_file(dict(list(kept.items())[2:]), half / "model.safetensors", {"format": "pt"})
    with pytest.raises(MaquetteError, match=r"half lacks 2 of the model's weights, such as .*; get the whole model"):
        open_dino(half, CPU)


@pytest.mark.parametrize(
    "told, said",
    [
        ({"image_mean": 5}, "image_mean is not three numbers"),
        ({"image_std": [1, 1, "x"]}, "image_std is not three numbers"),
        ({"size": {"shortest_edge": 0}}, "a size or image_std in it is not above 0"),
    ],
)
def test_what_a_preprocessor_cannot_say_is_told(dino: Path, tmp_path: Path, told: object, said: str) -> None:
    folder = Path(shutil.copytree(dino, tmp_path / "model"))
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    with pytest.raises(MaquetteError, match=rf"preprocessor_config\.json is damaged: .*{said}"):
        open_dino(folder, CPU)


def test_the_table_has_the_papers_columns(clip: Path, dino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreambench, "STEPS", 1)
    base = load("pocket")
    random = torch.Generator().manual_seed(0)
    photos = [Example(torch.rand((3, 64, 64), generator=random) * 2 - 1, "x", str(i)) for i in range(3)]
    same = tuned(base, None, "zkw disc")
    rows = dreambench.table(
        base, same, 1.0, photos, "zkw disc", clip=open_clip(clip, CPU), dino=open_dino(dino, CPU), per_prompt=2
    )
    assert [row["name"] for row in rows] == ["real images", "base, asked for disc", "trained"]
    real, before, after = rows
    assert real["clip_t"] is None and real["pres"] is None and -1 <= real["dino"] <= 1
    assert all(after[key] is not None for key in ("dino", "clip_i", "clip_t", "pres", "div"))
    assert before["pres"] is None and 0 <= after["div"] <= 2
    alone = dreambench.table(base, same, 1.0, photos, "zkw disc", clip=None, dino=open_dino(dino, CPU))
    assert alone[2]["clip_i"] is None and alone[2]["div"] is None and alone[2]["dino"] is not None
