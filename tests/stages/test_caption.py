"""The caption stage: what is written beside photos, what is kept, and the captioners."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maquette.data.caption_options import CaptionOptions
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.stages.caption import CaptionConfig, CaptionResult, run
from maquette.stages.captioners import models_folder, square_bgr

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def folder(quadrants: MakeImage, tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for name in ["a.jpg", "b.PNG", "sub/c.png"]:
        quadrants().save(photos / name)
    (photos / "a.txt").write_text("ohwx man, red hat\n", encoding="utf-8")
    return photos


def caption(folder: Path, **options: Any) -> CaptionResult:
    return run(CaptionConfig(photos=folder, **options))


def texts(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.[tb]*[tk]*"))
    }


def test_template_fills_what_is_missing_and_keeps_what_is_there(folder: Path) -> None:
    result = caption(folder, subject="ohwx man")
    assert texts(folder) == {
        "a.txt": "ohwx man, red hat\n",
        "b.txt": "a photo of ohwx man\n",
        "sub/c.txt": "a photo of ohwx man\n",
    }
    assert [(c.file, c.before) for c in result.written] == [("b.txt", None), ("sub/c.txt", None)]
    again = caption(folder, subject="zzz dog")
    assert again.written == [] and json.loads(json.dumps(again.to_json()))["written"] == 0


def test_overwrite_backs_up_every_time(folder: Path) -> None:
    caption(folder, subject="ohwx man", template="{subject}", overwrite=True)
    caption(folder, subject="qrt dog", template="{subject}", overwrite=True)
    assert texts(folder)["a.txt"] == "qrt dog\n"
    assert texts(folder)["a.txt.bak"] == "ohwx man, red hat\n"
    assert texts(folder)["a.txt.bak2"] == "ohwx man\n"
    assert texts(folder)["b.txt.bak"] == "ohwx man\n" and "b.txt.bak2" not in texts(folder)


def test_batch_edit_changes_all_and_dry_run_nothing(folder: Path) -> None:
    edits = {"replace": ["red hat=blue hat"], "add": ["outdoors"], "prefix": "best,"}
    before = texts(folder)
    preview = caption(folder, subject="ohwx man", dry_run=True, **edits)
    assert texts(folder) == before
    result = caption(folder, subject="ohwx man", **edits)
    assert [c.after for c in result.captions] == [c.after for c in preview.captions]
    assert texts(folder)["a.txt"] == "best, ohwx man, blue hat, outdoors\n"
    assert texts(folder)["b.txt"] == "best, a photo of ohwx man, outdoors\n"
    assert texts(folder)["a.txt.bak"] == before["a.txt"]


def test_tags_with_commas_are_added_and_removed_once(folder: Path) -> None:
    for _ in range(2):
        caption(folder, subject="ohwx man", add=["indoors, blurry"])
        assert texts(folder)["a.txt"] == "ohwx man, red hat, indoors, blurry\n"
    caption(folder, remove=["red hat, blurry"])
    assert texts(folder)["a.txt"] == "ohwx man, indoors\n"
    for option in ("add", "remove"):
        with pytest.raises(MaquetteError, match=f"{option} '' names no tag"):
            caption(folder, **{option: [""]})


def test_photos_of_the_longest_names_are_captioned(folder: Path) -> None:
    for name in ("n" * 251, "é" * 125 + "n"):
        (folder / f"{name}.png").write_bytes((folder / "b.PNG").read_bytes())
        caption(folder, subject="ohwx man")
        assert (folder / f"{name}.txt").read_text() == "a photo of ohwx man\n"


def test_the_shuffle_preview_is_what_training_reads_and_changes_nothing(folder: Path) -> None:
    (folder / "a.txt").write_text("zkw robot, red, big, hat")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = run(CaptionConfig(photos=folder, subject="zkw robot", shuffle=4, keep_tokens=1, suffix="x"))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before and result.dry_run
    (first,) = [caption for caption in result.captions if caption.photo.startswith("a.")]
    assert len(set(first.shuffled)) == 4
    for order in first.shuffled:
        head, *rest = order.split(", ")
        assert head == "zkw robot" and sorted(rest) == ["big", "hat x", "red"]
    options = CaptionOptions(shuffle=True, keep_tokens=1)
    (photo,) = [p for p in read_folder(folder, "zkw robot").photos if p.name == first.photo]
    shown = replace(photo, options=options, caption="zkw robot, red, big, hat x")
    assert set(first.shuffled) <= {shown.caption_at(draw) for draw in range(200)}
    with pytest.raises(MaquetteError, match="keep_tokens is for shuffle"):
        CaptionConfig.parse({"photos": folder, "keep_tokens": 1})


def test_a_dot_caption_file_is_edited_in_place(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "a.CAPTION")
    result = caption(folder, subject="ohwx man", add=["x"])
    assert result.captions[0].file == "a.CAPTION" and result.captions[0].backup == "a.CAPTION.bak"
    assert (folder / "a.CAPTION").read_text() == "ohwx man, red hat, x\n" and not (folder / "a.txt").exists()


def test_kohya_folders_name_the_subject(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ["40_ohwx man", "10_qrt dog"]:
        (tmp_path / name).mkdir()
        quadrants().save(tmp_path / name / "x.png")
    caption(tmp_path)
    assert texts(tmp_path) == {
        "10_qrt dog/x.txt": "a photo of qrt dog\n",
        "40_ohwx man/x.txt": "a photo of ohwx man\n",
    }


def test_faults_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_MODELS", str(tmp_path / "models"))
    assert models_folder() == tmp_path / "models"
    with pytest.raises(MaquetteError, match=r"b\.PNG has no caption and no subject is named"):
        caption(folder)
    with pytest.raises(
        MaquetteError, match=r"blip has no weights: put config\.json, model\.safetensors, .* into .*models/blip"
    ):
        caption(folder, captioner="blip")
    with pytest.raises(MaquetteError, match=r"wd14 has no weights: put model\.onnx, selected_tags\.csv of https://"):
        caption(folder, captioner="wd14", model=tmp_path)
    with pytest.raises(MaquetteError, match=r"no captioner 'bilp': .* Did you mean blip\?"):
        caption(folder, captioner="bilp")
    for name in ("b.PNG", "sub/c.png"):
        (folder / name).with_suffix(".txt").write_text("x")
    with pytest.raises(MaquetteError, match=r"a\.jpg would get a new caption and no subject is named: give --subject"):
        caption(folder, overwrite=True)
    (folder / "b.txt").write_bytes(b"caf\x81")
    with pytest.raises(MaquetteError, match=r"b\.txt is not UTF-8"):
        caption(folder, subject="ohwx man")
    assert (folder / "b.txt").read_bytes() == b"caf\x81"


@pytest.fixture
def tiny_blip(tmp_path: Path) -> Path:
    """A BLIP of the true class with random weights and eleven words."""
    import torch
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder = tmp_path / "blip"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "in", "red", "hat", "[DEC]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "bos_token_id": 10,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "sep_token_id": 3,
        "max_position_embeddings": 80,
    }
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    BlipProcessor(images, BertTokenizerFast(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def test_blip_describes_and_the_subject_is_worked_in(folder: Path, tiny_blip: Path) -> None:
    result = caption(folder, subject="ohwx man", captioner="blip", model=tiny_blip)
    assert [c.file for c in result.written] == ["b.txt", "sub/c.txt"]
    for written in result.written:
        assert "ohwx man" in written.after
        assert set(written.after.replace("ohwx man", "").replace(",", "").split()) <= {
            "[DEC]",
            "a",
            "man",
            "in",
            "red",
            "hat",
        }
    assert result.written[0].after == result.written[1].after  # same pixels, no sampling
    same = caption(folder, subject="ohwx man", captioner=str(tiny_blip), overwrite=True)
    assert same.captions[1].after == result.written[0].after


def test_a_folder_that_is_no_captioner(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(MaquetteError, match="cannot be opened as an image-to-text model"):
        caption(folder, captioner=str(tmp_path / "m"))


def test_without_transformers_the_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (folder / "config.json").write_text("{}")
    with pytest.raises(MaquetteError, match=r"need the package transformers: pip install 'maquette-lora\[blip\]'"):
        caption(folder, captioner=str(folder))


@pytest.fixture
def tiny_tagger(tmp_path: Path) -> Path:
    """An ONNX tagger that says "red" of red pictures: mean blue, green, red / 255 as probabilities."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        make.make_node("Mul", ["mean", "scale"], ["three"]),
        make.make_node("Concat", ["three", "sure"], ["p"], axis=1),
    ]
    graph = make.make_graph(
        nodes,
        "tagger",
        [make.make_tensor_value_info("x", kinds.FLOAT, [1, 32, 32, 3])],
        [make.make_tensor_value_info("p", kinds.FLOAT, [1, 4])],
        [
            make.make_tensor("scale", kinds.FLOAT, [1], [1 / 255]),
            make.make_tensor("sure", kinds.FLOAT, [1, 1], [0.99]),
        ],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "selected_tags.csv").write_text(
        "tag_id,name,category,count\n0,blue_sky,0,9\n1,green_grass,0,9\n2,red_hat,0,9\n3,general,9,9\n"
    )
    return tmp_path


def test_wd14_tags_in_order_of_probability_without_ratings(tmp_path: Path, tiny_tagger: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (40, 40), (250, 100, 20)).save(tmp_path / "p" / "red.png")
    Image.new("RGB", (40, 40), (120, 20, 240)).save(tmp_path / "p" / "violet.png")
    caption(tmp_path / "p", subject="ohwx man", captioner="wd14", model=tiny_tagger)
    assert texts(tmp_path / "p") == {
        "red.txt": "ohwx man, red hat, green grass\n",
        "violet.txt": "ohwx man, blue sky, red hat\n",
    }
    (tiny_tagger / "selected_tags.csv").write_text("tag_id,name,category,count\n0,blue_sky,0,9\n")
    with pytest.raises(MaquetteError, match="do not belong together"):
        caption(tmp_path / "p", captioner="wd14", model=tiny_tagger, overwrite=True)
    (tiny_tagger / "model.onnx").write_bytes(b"no model")
    with pytest.raises(MaquetteError, match=r"model\.onnx cannot be opened as an ONNX model"):
        caption(tmp_path / "p", captioner="wd14", model=tiny_tagger, overwrite=True)


def test_tagger_input_is_a_white_padded_square_in_bgr() -> None:
    pixels = square_bgr(Image.new("RGB", (100, 50), (255, 0, 10)), 16)
    assert pixels.shape == (1, 16, 16, 3) and pixels.dtype == np.float32
    assert pixels[0, 8, 8].tolist() == [10, 0, 255]
    assert pixels[0, 0, 8].tolist() == [255, 255, 255]


def test_edits_keep_the_lines_of_a_caption(folder: Path) -> None:
    written = b"a red hat\n\n in a park, day \r\nred, hat"
    (folder / "a.txt").write_bytes(written)
    result = caption(folder, subject="ohwx man", prefix="ohwx man,", replace=["red=blue"], remove=["day"])
    assert texts(folder)["a.txt"] == "ohwx man, a blue hat\nohwx man, in a park\nohwx man, blue, hat\n"
    assert (folder / "a.txt.bak").read_bytes() == written
    again = caption(folder, subject="ohwx man", prefix="ohwx man,", replace=["red=blue"], remove=["day"])
    assert again.written == []
    assert result.captions[0].before == "a red hat\nin a park, day\nred, hat"


def test_photos_of_one_stem_get_captions_of_their_own(quadrants: MakeImage, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        quadrants().save(tmp_path / name)
    caption(tmp_path, subject="ohwx man")
    assert sorted(p.name for p in tmp_path.glob("*.txt")) == ["a.jpg.txt", "a.png.txt", "b.txt"]
    for path in tmp_path.glob("a.*.txt"):
        path.unlink()
    (tmp_path / "a.txt").write_text("shared")
    result = caption(tmp_path, subject="ohwx man", prefix="best,")
    assert texts(tmp_path) == {
        "a.txt": "best, shared\n",
        "a.txt.bak": "shared",
        "b.txt": "best, a photo of ohwx man\n",
    } | {"b.txt.bak": "a photo of ohwx man\n"}
    assert "a.jpg and a.png share the caption a.txt" in result.problems[0].message
    caption(tmp_path, subject="ohwx man", overwrite=True)
    assert texts(tmp_path)["a.txt"] == "best, shared\n" and texts(tmp_path)["a.png.txt"] == "a photo of ohwx man\n"


def test_a_data_set_file_decides_how_new_captions_are_called(quadrants: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    quadrants().save(tmp_path / "p" / "a.png")
    (tmp_path / "set.toml").write_text(
        '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "p"\ncaption_extension = ".tags"\nclass_tokens = "ohwx man"\n'
    )
    caption(tmp_path / "set.toml")
    assert (tmp_path / "p" / "a.tags").read_text() == "ohwx man\n"


def test_what_check_would_say_of_the_captions_is_said(folder: Path) -> None:
    (folder / "b.txt").write_text("ohwx man " + "very " * 300)
    (folder / "sub" / "c.txt").write_text("a dog")
    messages = [problem.message for problem in caption(folder, subject="ohwx man").problems]
    assert messages[0].startswith("The caption of b.PNG has 302 tokens; after the 225th it is cut off")
    assert messages[1] == "The caption of sub/c.png does not contain 'ohwx', the word of the subject."
