"""What the pages say, without a browser: options of a training, presets and their costs, readiness, verdicts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.studio import presets, texts
from maquette.studio.job import Job
from maquette.studio.pages import jobs, options, results, training
from tests.studio.conftest import Running


def _keys(changed: dict[str, Any], base: str = "pocket") -> set[str]:
    return {field["key"] for group in options.groups(changed, base) for field in group["fields"]}


def test_options_are_those_of_the_configuration_that_have_an_effect() -> None:
    keys = _keys({})
    assert {"rank", "learning_rate", "steps", "min_snr_gamma"} <= keys <= set(TrainConfig.model_fields)
    assert not keys & {"photos", "out", "base", "from_lora", "reg", "vae", "device", "sample_prompts"}
    assert "lokr_factor" not in keys and "lokr_factor" in _keys({"method": "lokr"})
    assert "lr_scheduler_cycles" not in keys and "lr_scheduler_cycles" in _keys({"lr_scheduler": "restarts"})
    assert "clip_skip" not in keys and "clip_skip" in _keys({}, base="sd15.safetensors")
    assert "lokr_factor" in _keys({"lokr_factor": 4}), "what was changed can be changed back"
    named = {*options.NEEDS, *options.HIDDEN, *options.ONLY_CUDA, *options.ONLY_STABLE_DIFFUSION}
    assert named <= set(TrainConfig.model_fields), "every name is one of the configuration"


@pytest.mark.parametrize(
    ("key", "kind", "choices"),
    [("rank", "number", []), ("flip_aug", "bool", []), ("buckets", "choice", ["", "true", "false"]),
     ("stop", "choice", ["never", "auto"]), ("block_ranks", "text", []), ("caption_prefix", "text", []),
     ("max_token_length", "choice", ["75", "150", "225"]), ("learning_rate", "number", [])],
)  # fmt: skip
def test_the_kind_of_field_follows_from_the_type(key: str, kind: str, choices: list[str]) -> None:
    assert options.kind_of(TrainConfig.model_fields[key].annotation) == (kind, choices)


def test_every_default_is_kept_by_its_own_field() -> None:
    for group in options.groups({}, "sd15.safetensors"):
        for field in group["fields"]:
            text = field["value"] if field["type"] == "bool" else str(field["value"])
            assert options.merged({}, {field["key"]: text}) == {}, field["key"]


def test_a_change_is_typed_counted_and_forgotten_when_it_is_the_default() -> None:
    told = {"rank": "32", "flip_aug": True, "block_ranks": "{mid_block = 8}", "caption_prefix": "a "}
    changed = options.merged({}, told)
    assert changed == {"rank": 32, "flip_aug": True, "block_ranks": {"mid_block": 8}, "caption_prefix": "a"}
    assert options.merged(changed, {"rank": "16", "flip_aug": False}) == {
        "block_ranks": {"mid_block": 8},
        "caption_prefix": "a",
    }
    assert options.merged({}, {"flip": True}) == {"flip_aug": True}, "by its old name"
    assert options.merged(changed, {"caption_prefix": ""}).keys() == {"rank", "flip_aug", "block_ranks"}


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [("rank", "many", "rank = 'many' is not possible"), ("rank", "0", "greater than or equal to 1"),
     ("photos", "/etc", "is no option"), ("ranks", "3", "is no option")],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(key: str, text: str, sentence: str) -> None:
    with pytest.raises(MaquetteError, match=re.escape(sentence)):
        options.merged({}, {key: text})


def test_presets_differ_in_steps_and_leave_what_the_user_says() -> None:
    quick, best = (presets.values(name, 14, "sd15.safetensors", {}) for name in ("quick", "best"))
    usual = presets.default_steps(presets.STABLE_DIFFUSION, 14, presets.batch_of("sd15.safetensors"))
    assert quick["steps"] == round(0.4 * usual) < usual < best["steps"] == round(1.6 * usual)
    assert "steps" not in presets.values("good", 14, "sd15.safetensors", {})
    assert "steps" not in presets.values("best", 14, "sd15.safetensors", {"epochs": 3})


def test_the_cost_of_pocket_comes_from_its_own_layers(studio: Running) -> None:
    cost = presets.costs(studio.studio, 14, "pocket", {})["good"]
    assert cost.steps == 300 and not cost.measured
    assert cost.seconds is not None and cost.seconds > 1
    assert cost.memory_bytes is not None and 5e8 < cost.memory_bytes < 2e9
    double = presets.costs(studio.studio, 14, "pocket", {"steps": 600})["good"]
    assert double.seconds == pytest.approx(2 * cost.seconds)
    studio.wait(studio.train(studio.project(photos=4)), "finished")
    assert presets.costs(studio.studio, 14, "pocket", {})["good"].measured


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4, "≈ 10 s"),
        (42, "≈ 40 s"),
        (56, "≈ 1 min"),
        (60, "≈ 1 min"),
        (102, "≈ 1.5 min"),
        (170, "≈ 3 min"),
        (660, "≈ 11 min"),
        (9000, "≈ 2.5 h"),
    ],
)
def test_times_are_spoken_as_roughly_as_they_are_known(seconds: float, words: str) -> None:
    assert training.spoken(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (-1, ""), (5, "under a minute left"), (360, "6 min left"), (7200, "2.0 hours left")],
)
def test_remaining_time_in_words(seconds: float | None, words: str) -> None:
    assert jobs.duration(seconds) == words


@pytest.mark.parametrize(
    ("status", "percent"),
    [({}, None), ({"step": 43, "steps": 100}, 43), ({"done": 1, "of": 3}, 33), ({"step": 7, "steps": 0}, None),
     ({"step": 300, "steps": 100}, 100)],
)  # fmt: skip
def test_percent(status: dict[str, Any], percent: int | None) -> None:
    assert jobs.percent_of(status) == percent


@pytest.mark.parametrize(
    ("status", "line"),
    [({}, "Starting: loading the base"), ({"step": 4, "steps": 9, "what": "training", "of": 3, "done": 3}, "step 4/9"),
     ({"step": 9, "steps": 9, "what": "measuring checkpoints", "done": 2, "of": 8, "remaining_seconds": 90},
      "step 9/9 · measuring checkpoints, 2 of 8 · 2 min left"),
     ({"what": "describing photos", "done": 1, "of": 4}, "describing photos, 1 of 4")],
)  # fmt: skip
def test_how_far_a_job_is_in_one_line(status: dict[str, Any], line: str, tmp_path: Path) -> None:
    job = Job.create(tmp_path / "j", {"kind": "train", "project": "p", "config": {}})
    job.set_status(state="running")
    assert jobs.line_of(job, status) == line


def test_bars_and_rows_of_a_verdict() -> None:
    rows = [{"step": 10, "weight": 0.7, "likeness": 0.5, "score": 0.9}, {"step": 10, "weight": 1.0, "score": 0.95},
            {"step": 20, "weight": 1, "likeness": 0.9, "obedience": 0.83, "diversity": 1.2, "score": 0.2}]  # fmt: skip
    verdict = {"step": 10, "weight": 0.7, "rows": [*rows, "damaged", {"step": "x"}]}
    best = results.best_rows(verdict)
    assert best[10]["weight"] == 0.7, "of the kept step the kept weight, whatever another scores"
    assert [(bar["name"], bar["percent"]) for bar in results.bars(best[20])] == [
        ("Likeness", 90), ("Follows prompts", 83), ("Variety", 100)]  # fmt: skip
    assert results.bars(None) == []


def test_readiness_names_what_is_missing_and_the_start_repeats_it(studio: Running) -> None:
    project = studio.project("Few", photos=3)
    page = studio.client.get(f"/p/{project}/train").text
    assert "3 photos are too few; it takes 4 at least." in page and "Add photos" in page
    answer = studio.client.post(f"/ui/p/{project}/start", json={})
    assert answer.status_code == 400 and "too few" in answer.json()["error"]
    studio.lose_base(project)
    assert "Choose another base." in studio.client.get(f"/p/{project}/train").text


def test_a_page_that_is_not_there_is_a_page(studio: Running) -> None:
    answer = studio.client.get("/p/nobody-123456/photos")
    assert answer.status_code == 404 and "text/html" in answer.headers["content-type"]
    assert "To your projects" in answer.text and "There is no such project" in answer.text
    for path in ("/nowhere", "/p/", "/api/nowhere"):
        answer = studio.client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert answer.status_code == 404 and "There is no such page." in answer.text, path
        assert studio.client.get(path).json() == {"error": "Not Found"}, path


def test_the_theme_comes_from_its_cookie_and_from_no_other_word(studio: Running) -> None:
    for value, shown in (("dark", 'data-theme="dark"'), ("light", 'data-theme="light"')):
        assert shown in studio.client.get("/", headers={"cookie": f"theme={value}"}).text
    assert "data-theme=" not in studio.client.get("/", headers={"cookie": 'theme="onload=x'}).text.partition(">")[0]


def test_texts_of_a_training_name_no_folder_of_this_computer(studio: Running) -> None:
    project = studio.project("Texts", photos=5)
    studio.client.post(f"/ui/p/{project}/settings", json={"changed": {"rank": "8"}})
    page = studio.client.get(f"/ui/p/{project}/advanced").text
    assert ("rank = 8" in page and "rank=8" in page) or "--rank 8" in page
    assert str(studio.studio.folder) not in page


def test_the_drawer_asks_for_kohyas_command_only_when_it_is_looked_at(
    studio: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a process with torch."""
    project, asked = studio.project("Kohya", photos=4), []
    monkeypatch.setattr(texts, "kohya", lambda *_: asked.append(1) or "accelerate <launch>")
    page = studio.client.get(f"/ui/p/{project}/advanced").text
    assert "As Kohya&#39;s command" in page or "As Kohya's command" in page
    assert f'hx-get="/ui/p/{project}/kohya" hx-trigger="toggle once"' in page and asked == []
    assert "accelerate &lt;launch&gt;" in studio.client.get(f"/ui/p/{project}/kohya").text and asked == [1]


def test_times_say_how_they_are_known(studio: Running) -> None:
    project = studio.project("Times", photos=4)
    page = studio.client.get(f"/p/{project}/train").text
    assert "Estimated within a factor of three, with no other program at work, on this computer" in page


def test_the_processors_speed_is_that_of_a_core_times_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(presets, "processor_speed", lambda work, flop: counted.append(flop) or (work(), 3e9)[1])
    monkeypatch.setattr(presets, "processors", lambda: 4)
    assert presets.cpu_speed.__wrapped__() == 12e9
    assert counted == [100 * 2 * 64**3]


def test_a_copy_of_pocket_costs_what_pocket_costs(studio: Running, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(presets.POCKET_UNET.parent, folder / "unet")
    assert presets.is_pocket(str(folder)) and not presets.is_pocket(str(tmp_path / "gone.safetensors"))
    for preset in presets.SHARES:
        assert presets.values(preset, 9, str(folder), {}) == presets.values(preset, 9, "pocket", {})
        copy, own = (presets.costs(studio.studio, 9, base, {})[preset] for base in (str(folder), "pocket"))
        assert (copy.steps, copy.seconds, copy.memory_bytes) == (own.steps, own.seconds, own.memory_bytes)
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((320, 4, 3, 3), np.float16)}
    save_file(tensors, tmp_path / "sd.safetensors")
    assert not presets.is_pocket(str(tmp_path / "sd.safetensors"))
