"""`--from` on pictures of every mode: the same text and the same bytes. Those of pictures stand beside their modes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.adapters.embeddings import Embedding, save
from maquette.sampling.pipeline import Pipeline
from maquette.stages.generate import GenerateConfig, run
from maquette.stages.repeat import repeated
from tests.sampling.random_loras import write_lora

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))
import tiny
from test_controlnet import network

FILES = ("lora_dir", "embedding_dir", "block_weights")
MODES: dict[str, dict[str, Any]] = {
    "AND and weights": {"prompt": "a ((red)) cat:1.1 AND [a dog]:0.6", "negative_prompt": "(blue:1.4)", "steps": 3},
    "editing": {"prompt": "a [cat:dog:0.5] on [red|blue] [grass::2]", "negative_prompt": "[x:y:1]", "sampler": "Heun"},
    "exact editing": {"prompt": "a [cat:dog:0.5]", "prompt_editing": "exact", "sampler": "DPM2 a"},
    "emphasis": {"prompt": "a (cat:1.4)", "emphasis": "No norm"},
    "long": {"prompt": "a cat, " * 40 + "BREAK a dog"},
    "comments": {"prompt": "a cat # not this\non red", "negative_prompt": "dog # nor this"},
    "quotation marks": {"prompt": 'a "cat", Steps: 3, of: x', "negative_prompt": 'b: "c, d"'},
    "loras": {"prompt": "a cat <lora:robot:0.7:lbw=OUTALL:start=0.3:stop=0.9><lora:other:0.4:0.2>", "steps": 4},
    "own blocks": {"prompt": "a cat <lora:robot:1:lbw=HALF:dyn=2>"},
    "activation": {"prompt": "a cat <lora:told>", "activation": True},
    "embedding": {"prompt": "a zkwword on red"},
    "styles": {"prompt": "a cat", "styles": ["Noto"], "styles_file": "styles.csv"},
    "wildcards": {"prompt": "a {cat|dog|star} on __colour__", "wildcard_dir": "wild"},
    "churn": {"sampler": "Euler", "s_churn": 2, "s_tmin": 0.1, "s_tmax": 20, "s_noise": 1.1, "steps": 4},
    "SDE": {"sampler": "DPM++ 2M SDE Heun", "schedule_type": "Beta", "eta": 0.7, "s_noise": 0.9, "noise_source": "NV"},
    "DDIM's eta": {"sampler": "DDIM", "eta": 0.5},
    "CFG++": {"sampler": "DDIM CFG++", "cfg_scale": 10},
    "rescale": {"cfg_rescale": 0.7, "sampler": "LMS", "schedule_type": "Polyexponential"},
    "discarded": {"discard_penultimate_sigma": True, "sampler": "Euler", "schedule_type": "Exponential", "steps": 3},
    "Restart": {"sampler": "Restart", "steps": 5},
    "LCM": {"sampler": "LCM", "cfg_scale": 1.5, "ensd": 31337},
    "tiles": {"width": 1040, "height": 16, "tiled_vae": True, "steps": 1},
    "hires": {
        "prompt": "a cat <lora:robot:1>", "hires_scale": 1.5, "hires_upscaler": "Latent (bicubic)", "hires_steps": 3,
        "hires_sampler": "DPM++ SDE", "hires_schedule_type": "Karras", "hires_negative_prompt": "a dog",
        "hires_prompt": "a zkwword <lora:other:0.5>", "denoising_strength": 0.7, "eta": 0.8,
    },
    "hires, ancestral and told": {
        "hires_scale": 1.5, "hires_sampler": "Euler a", "ensd": 31337, "activation": True, "tiled_vae": True,
        "hires_prompt": "a cat # or dog\n<lora:told>",
    },
    "comments kept": {"prompt": "a cat # on red", "negative_prompt": "c#", "prompt_comments": False},
    "emphasis of hires alone": {"hires_scale": 1.5, "hires_prompt": "a (cat:1.6)", "emphasis": "No norm"},
    "choices and styles of hires": {
        "prompt": "a {cat|dog}", "hires_scale": 1.5, "hires_prompt": "a {cat|dog|star} on __colour__",
        "wildcard_dir": "wild", "styles": ["Noto"], "styles_file": "styles.csv",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline("pocket")


@pytest.fixture(scope="module")
def files(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    base = pipeline.base
    (root / "loras").mkdir()
    for i, name in enumerate(("robot", "other", "told")):
        write_lora(base, root / "loras" / f"{name}.safetensors", seed=i, name=name)
    side_car = {"activation text": "zkw robot", "preferred weight": 0.4}
    (root / "loras" / "told.json").write_text(json.dumps(side_car))
    vectors = torch.randn(2, base.text_encoders[0].config.hidden_size, generator=torch.Generator().manual_seed(0))
    (root / "words").mkdir()
    save(Embedding("zkwword", (vectors,), "pocket"), root / "words" / "zkwword.safetensors", "a1111")
    (root / "styles.csv").write_text('name,prompt,negative_prompt\nNoto,"{prompt}, noto style",blurry\n')
    (root / "wild").mkdir()
    (root / "wild" / "colour.txt").write_text("red\nblue\ngreen\n")
    (root / "presets.txt").write_text("HALF:" + ",".join(["0.5"] * 14))
    return root


def equal_again(pipeline: Pipeline, out: Path, values: dict[str, Any], given: dict[str, Any]) -> None:
    """Draw, read the text, draw by it: the same text and bytes. given: what no text can hold."""
    values = {"prompt": "a cat", "steps": 2, "seed": 7, "base": "pocket", **values, **given}
    first = run(GenerateConfig.parse({**values, "out": out / "first"}), base=pipeline)
    told = repeated(Path(first.paths[0]), {**given, "out": out / "again"})
    again = run(GenerateConfig.parse(told), base=pipeline)
    assert again.infotexts == first.infotexts
    assert Path(again.paths[0]).read_bytes() == Path(first.paths[0]).read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_words(pipeline: Pipeline, files: Path, tmp_path: Path, mode: str) -> None:
    values = {
        key: files / each if key in ("styles_file", "wildcard_dir") else each for key, each in MODES[mode].items()
    }
    given = {"lora_dir": files / "loras", "embedding_dir": files / "words", "block_weights": files / "presets.txt"}
    equal_again(pipeline, tmp_path, values, given)


@pytest.mark.parametrize("begun", ["text", "image", "mask", "hires"])
def test_pictures_with_controlnets(tmp_path: Path, begun: str) -> None:
    tiny.write_folder(tmp_path / "sd1", "sd1", channels=4)
    network("sd1").save_pretrained(tmp_path / "control")
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small.repeat(8, 0).repeat(8, 1)).save(tmp_path / "photo.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    unit = f"{tmp_path / 'control'},image={tmp_path / 'photo.png'}"
    values: dict[str, Any] = {"width": 64, "height": 64, "sampler": "Euler a"}
    values["controls"] = [
        f"{unit},preprocessor=canny,a=50,weight=0.7,start=0.1,end=0.9,mode=prompt",
        f"{unit},resize=fill",
    ]
    given: dict[str, Any] = {"base": str(tmp_path / "sd1")}
    if begun in ("image", "mask"):
        given["init_image"] = tmp_path / "photo.png"
    if begun == "mask":
        given["mask"] = str(tmp_path / "mask.png")
    if begun == "hires":
        values |= {"hires_scale": 1.5, "denoising_strength": 0.6}
    with Pipeline(tmp_path / "sd1") as pipeline:
        first = run(
            GenerateConfig.parse({"prompt": "a cat", "steps": 2, "seed": 7, "out": tmp_path, **values, **given}),
            base=pipeline,
        )
        told = repeated(Path(first.paths[0]), {**given, "controls": [unit, unit], "out": tmp_path})
        again = run(GenerateConfig.parse(told), base=pipeline)
    assert again.infotexts == first.infotexts
    assert Path(again.paths[0]).read_bytes() == Path(first.paths[0]).read_bytes()


def test_what_the_base_is_told_to_predict(tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "sd1", "sd1")
    told = {"prompt": "a cat", "base": str(base), "steps": 2, "width": 64, "height": 64, "seed": 3}
    first = run(GenerateConfig.parse({**told, "prediction_type": "v_prediction", "out": tmp_path / "first"}))
    plain = run(GenerateConfig.parse({**told, "prediction_type": "epsilon", "out": tmp_path / "plain"}))
    assert "Prediction type: v_prediction" in first.infotexts[0] and "Prediction type" not in plain.infotexts[0]
    values = repeated(Path(first.paths[0]), {"base": str(base)})
    again = run(GenerateConfig.parse({**values, "out": tmp_path / "again"}))
    pictures = [np.asarray(Image.open(one.paths[0])) for one in (first, again, plain)]
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
