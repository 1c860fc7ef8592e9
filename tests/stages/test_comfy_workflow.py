"""`--comfy`: the workflow beside the picture, with its seed; nothing is drawn where ComfyUI cannot draw it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from maquette import families
from maquette.errors import MaquetteError
from maquette.stages.comfy_workflow import written
from maquette.stages.generate import GenerateConfig, run

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))
import tiny


def test_a_workflow_beside_the_picture(tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "narrow", "sd1")
    told = {"prompt": "a cat", "base": str(base), "out": tmp_path / "out", "steps": 2, "width": 64, "height": 64}
    config = GenerateConfig.parse({**told, "sampler": "Euler a", "comfy": tmp_path / "flow.json"}, "test")
    result = run(config)
    flow = json.loads((tmp_path / "flow.json").read_text())
    kinds = {node["class_type"]: node["inputs"] for node in flow.values()}
    assert kinds["DiffusersLoader"] == {"model_path": "narrow"}
    assert kinds["KSamplerAdvanced"]["noise_seed"] == result.seeds[0]
    assert any(text.startswith("flow.json: Euler a adds noise of its own") for text in result.warnings)
    with pytest.raises(MaquetteError, match=r"flow.json exists already; give a new name with --comfy"):
        run(config)


@pytest.mark.parametrize("zero", [False, True])
def test_zero_terminal_snr_is_in_the_workflow(tmp_path: Path, zero: bool) -> None:
    base = families.load(tiny.write_folder(tmp_path / "narrow", "sdxl", prediction="v_prediction"))
    base.scheduler_config["rescale_betas_zero_snr"] = zero
    told = {"prompt": "a cat", "width": 64, "height": 64, "comfy": tmp_path / "flow.json"}
    written(GenerateConfig.parse(told), base, lambda event: None)
    nodes = json.loads((tmp_path / "flow.json").read_text()).values()
    found = [node["inputs"] for node in nodes if node["class_type"] == "ModelSamplingDiscrete"]
    assert [(told["sampling"], told["zsnr"]) for told in found] == [("v_prediction", zero)]


def test_an_embedding_of_the_second_drawing_alone(tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "narrow", "sd1")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "zkwword.pt").write_bytes(b"not read for the workflow")
    told = {"prompt": "a cat", "hires_prompt": "a zkwword", "hires_scale": 2, "width": 64, "height": 64}
    config = GenerateConfig.parse({**told, "embedding_dir": tmp_path / "words", "comfy": tmp_path / "flow.json"})
    written(config, families.load(base), lambda event: None)
    texts = [node["inputs"].get("text") for node in json.loads((tmp_path / "flow.json").read_text()).values()]
    assert "a embedding:zkwword" in texts


def test_pocket_is_not_for_comfyui(tmp_path: Path) -> None:
    told = {"prompt": "a cat", "out": tmp_path / "out", "comfy": tmp_path / "flow.json"}
    with pytest.raises(MaquetteError, match="ComfyUI cannot open pocket"):
        run(GenerateConfig.parse(told, "test"))
    assert not list(tmp_path.iterdir())


def test_a_workflow_of_several_drawings_is_refused_before_the_first(tmp_path: Path) -> None:
    base = tiny.write_folder(tmp_path / "narrow", "sd1")
    told = {"base": str(base), "out": tmp_path / "out", "steps": 1, "width": 64, "height": 64}
    told |= {"comfy": tmp_path / "flow.json", "prompts_file": tmp_path / "prompts.txt"}
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    with pytest.raises(MaquetteError, match=r"flow\.json is of one drawing, and .*prompts\.txt stands for several"):
        run(GenerateConfig.parse(told))
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "photos" / f"{name}.png")
    begun = {**told, "prompt": "a cat", "prompts_file": None, "init_image": tmp_path / "photos"}
    with pytest.raises(MaquetteError, match=r"flow\.json is of one drawing, and .*photos stands for several"):
        run(GenerateConfig.parse(begun))
    assert not (tmp_path / "flow.json").exists() and not (tmp_path / "out").exists()
    (tmp_path / "prompts.txt").write_text("a cat\n")
    assert len(run(GenerateConfig.parse(told)).paths) == 1 and (tmp_path / "flow.json").is_file()
