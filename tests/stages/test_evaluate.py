"""maquette evaluate: what it refuses, what it leaves, how a training's end uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maquette
from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.evaluation.choice import Row, choose
from maquette.evaluation.panel import QUICK, SMALL, STANDARD
from maquette.evaluation.verdict import Shown, Verdict
from maquette.families import load
from maquette.formats import safetensors
from maquette.stages import evaluate, evaluate_judges, train
from maquette.training import verdicts
from maquette.training.verdicts import affordable, weights_for


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        pixels = np.full((64, 64, 3), (200, 40 * i, 30), np.uint8)
        pixels[20:44, 10 + 8 * i : 34 + 8 * i] = (240, 220, 60)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a photo of zkw disc on a red background")
    return folder


SMALLEST = {"subject": "zkw disc", "sample_prompts": [], "batch_size": 1, "rank": 2, "dtype": "fp32"}


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two checkpoints, too short to be judged at its end."""
    out = tmp_path_factory.mktemp("run") / "disc"
    values = {"photos": photos, "out": out, "steps": 2, "save_every_steps": 1, **SMALLEST}
    result = train.run(TrainConfig.parse(values))
    assert (result.chosen, result.weight, result.reasons) == (2, None, [])
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "disc"))


def verdict_of(step: int, weight: float) -> Verdict:
    rows = [
        Row(s, w, {"likeness": 0.9 if (s, w) == (step, weight) else 0.3, "edit_retention": 0.3 if s == 2 else 0.9})
        for s in (1, 2)
        for w in (0.7, 1.0)
    ]
    shown = Shown("a photo of zkw disc", torch.full((3, 64, 64), 0.5), 0, True)
    told = ("Take step 1 at weight 0.7: likeness 0.90.", "Step 2 is overtrained.")
    return Verdict(choose(rows), tuple(rows), told, "step", ("2.png",), (), (shown,))


def test_the_chosen_step_becomes_the_runs_file_with_its_weight(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def judged(base: Any, candidates: Any, photos: Any, subject: str, **options: Any) -> Verdict:
        given.update(options, subject=subject, steps=[c.step for c in candidates], photos=len(photos))
        return verdict_of(1, 0.7)

    monkeypatch.setattr(evaluate, "judge", judged)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["evaluate", str(run), "--prefer", "likeness", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["weight"], told["file"]) == (1, 0.7, str(run / "disc.safetensors"))
    assert (given["subject"], given["steps"], given["photos"]) == ("zkw disc", [1, 2], 3)
    assert given["prefer"] == "likeness" and given["size"] == STANDARD and given["cells"] == 10
    first = run / "checkpoints/disc-000001.safetensors"
    assert safetensors.body_sha256(run / "disc.safetensors") == safetensors.body_sha256(first)
    assert safetensors.read_metadata(run / "disc.safetensors")["ss_output_name"] == "disc"
    assert json.loads((run / "disc.json").read_text())["preferred weight"] == 0.7
    assert [row["step"] for row in json.loads((run / "evaluation.json").read_text())["rows"]] == [1, 1, 2, 2]
    page = (run / "report.html").read_text()
    for part in (
        "Take step 1 at weight 0.7", "Step 2 is overtrained.", "Held out from training", "2.png",
        "prompts no longer steer the picture (edit retention 0.30)", "&lt;lora:disc:0.7&gt;", "copies 0.png",
    ):  # fmt: skip
        assert part in page, part
    assert [path.name for path in run.glob("*.safetensors")] == ["disc.safetensors"]
    longer = train.resume(run, {"steps": 3})  # from the last checkpoint, not from the chosen one
    assert (longer.start, longer.chosen) == (2, 3)
    assert not (run / "evaluation.json").exists()  # it was of the shorter run


def test_a_style_is_judged_as_one(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def judged(base: Any, candidates: Any, photos: Any, subject: str, **options: Any) -> Verdict:
        given.append({**options, "captions": [photo.caption for photo in photos]})
        return verdict_of(1, 0.7)

    monkeypatch.setattr(evaluate, "judge", judged)
    maquette.evaluate(run, kind="style")
    maquette.evaluate(run)
    assert [one["kind"] for one in given] == ["style", None], "the run was told nothing"
    files, pictures = tmp_path / "files", tmp_path / "pictures"
    shutil.copytree(run / "checkpoints", files)
    pictures.mkdir()
    Image.new("RGB", (64, 64), "teal").save(pictures / "a.png")
    maquette.evaluate(files, photos=pictures, subject="zkw style", out=tmp_path / "out")
    assert given[-1]["captions"] == ["a picture, zkw style"]
    for key, value in (("per_prompt", 2), ("faces", True)):
        with pytest.raises(MaquetteError, match=r"not for styles|not of a style|name one of them"):
            maquette.evaluate(run, kind="style", **{key: value})
    with pytest.raises(MaquetteError, match="kind person is of the measures that clip and dino add"):
        maquette.evaluate(run, kind="person")


def test_side_car_and_preview_are_those_of_the_chosen_file_of_a_renamed_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second file beside the one that the run has would be found too, with the weights of an earlier choice."""
    for step in (1, 2):
        samples = run / f"samples/{step:06d}"
        samples.mkdir(parents=True)
        Image.new("RGB", (64, 64), (step, 0, 0)).save(samples / "0.png")
        (samples / "prompts.json").write_text('["a photo of zkw disc"]')
    shutil.copy(run / "samples/000002/0.png", run / "disc.png")
    moved = run.rename(run.with_name("moved"))
    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 0.7))
    assert maquette.evaluate(moved).file == str(moved / "disc.safetensors")
    assert [path.name for path in moved.glob("*.safetensors")] == ["disc.safetensors"]
    assert Image.open(moved / "disc.png").getpixel((0, 0)) == (1, 0, 0)
    assert json.loads((moved / "disc.json").read_text())["preferred weight"] == 0.7


def test_a_folded_weight_is_one_in_the_side_car(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 0.7))
    result = maquette.evaluate(run, fold_weight=True)
    assert json.loads((run / "disc.json").read_text())["preferred weight"] == 1.0
    before = maquette.adapters.load(run / "checkpoints/disc-000001.safetensors")
    after = maquette.adapters.load(result.file)
    name = max(before.modules, key=lambda n: float(before.delta(n).abs().max()))
    torch.testing.assert_close(after.delta(name), 0.7 * before.delta(name), rtol=2e-3, atol=1e-6)
    page = Path(result.report).read_text()
    assert "&lt;lora:disc:1&gt;" in page and "The weight 0.7 is folded into the file: use it at 1." in page
    assert result.reasons[-1] == "The weight 0.7 is folded into the file: use it at 1."


@pytest.mark.parametrize(("method", "kind"), [("textual-inversion", "Word:"), ("dreambooth", "Model:")])
def test_the_last_lines_say_what_the_file_is(
    method: str,
    kind: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, settings = tmp_path / "disc", {key: value for key, value in SMALLEST.items() if key != "rank"}
    train.run(
        TrainConfig.parse(
            {**settings, "method": method, "photos": photos, "out": out, "steps": 2, "save_every_steps": 1}
        )
    )
    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 1.0))
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["evaluate", str(out)])
    assert capsys.readouterr().out.splitlines()[-2].split() == [kind, str(out / "disc.safetensors")]


def never(*_: Any, **__: Any) -> Verdict:
    raise AssertionError("it was measured")


def test_a_weight_that_cannot_be_folded_in_is_told_before_anything_is_measured(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "judge", never)
    word, dora = tmp_path / "word", tmp_path / "dora"
    for step in (1, 2):
        safetensors.save({"emb_params": torch.ones(1, 64)}, word / f"disc-{step:06d}.safetensors")
        adapter = safetensors.load(run / f"checkpoints/disc-{step:06d}.safetensors")
        scales = {
            key.replace("lora_up.weight", "dora_scale"): torch.full((len(up), 1), 2.0)
            for key, up in adapter.items()
            if key.endswith("lora_up.weight") and up.ndim == 2
        }
        safetensors.save({**adapter, **scales}, dora / f"disc-{step:06d}.safetensors")
    with pytest.raises(MaquetteError, match="A word has no weight: leave --fold-weight out"):
        maquette.evaluate(word, photos=photos, subject="zkw disc", fold_weight=True)
    with pytest.raises(MaquetteError, match=r"disc-000002\.safetensors cannot be folded in: .*is no plain product"):
        maquette.evaluate(dora, photos=photos, subject="zkw disc", fold_weight=True)


def test_of_another_trainers_words_only_the_step_is_chosen(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def judged(*_: Any, **options: Any) -> Verdict:
        given.update(options)
        return verdict_of(1, 1.0)

    for step in (1, 2):
        safetensors.save({"emb_params": torch.ones(1, 64)}, tmp_path / f"word/disc-{step:06d}.safetensors")
    monkeypatch.setattr(evaluate, "judge", judged)
    result = maquette.evaluate(tmp_path / "word", photos=photos, subject="zkw disc", out=tmp_path / "out")
    assert given["weights"] == [1.0]
    page = Path(result.report).read_text()
    assert f"maquette generate &#39;a photo of out&#39; --embedding-dir {result.file}" in page


def test_options_without_effect_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"The verdict on a run stays in its folder, .*leave --out out"):
        maquette.evaluate(run, out=tmp_path / "elsewhere")
    for options in ({"per_prompt": 4}, {"kind": "person"}):
        with pytest.raises(MaquetteError, match="is of the measures that clip and dino add"):
            maquette.evaluate(run, **options)


def test_what_fails_at_the_encoders_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def table(*_: Any, **__: Any) -> list[dict[str, Any]]:
        raise MaquetteError("the memory does not suffice")

    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 0.7))
    monkeypatch.setattr(evaluate_judges, "open_dino", lambda folder, device: "dino")
    monkeypatch.setattr(evaluate_judges.dreambench, "table", table)
    before = {path: path.read_bytes() for path in run.glob("disc.*")}
    with pytest.raises(MaquetteError, match="the memory does not suffice"):
        maquette.evaluate(run, dino=tmp_path)
    assert {path: path.read_bytes() for path in run.glob("disc.*")} == before


def test_a_folder_of_another_trainer_stays_as_it_is(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kohya = tmp_path / "kohya"
    kohya.mkdir()
    for step, path in zip((1, 2), sorted((run / "checkpoints").iterdir()), strict=True):
        safetensors.save(safetensors.load(path), kohya / f"man-{step:06d}.safetensors", {})
    before = {path.name: path.read_bytes() for path in kohya.iterdir()}
    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 1.0))
    monkeypatch.chdir(tmp_path)
    result = maquette.evaluate(kohya, photos=photos, subject="zkw disc")
    assert result.run == "runs/kohya-evaluation"
    assert Path(result.file).read_bytes() == before["man-000001.safetensors"]
    assert {path.name: path.read_bytes() for path in kohya.iterdir()} == before
    assert "&lt;lora:kohya-evaluation:1&gt;" in Path(result.report).read_text()
    with pytest.raises(MaquetteError, match=r"is not empty; choose another --out"):
        maquette.evaluate(kohya, photos=photos, subject="zkw disc", out=result.run)


def test_one_checkpoint_is_no_choice(run: Path) -> None:
    (run / "checkpoints/disc-000001.safetensors").unlink()
    with pytest.raises(MaquetteError, match=r"has one checkpoint: .*nothing to choose between.*save_every"):
        maquette.evaluate(run)


def test_a_run_whose_photos_are_gone_is_told_so(run: Path, tmp_path: Path) -> None:
    text = (run / "run.toml").read_text()
    (run / "run.toml").write_text(text.replace(str(TrainConfig.read(run / "run.toml").photos), str(tmp_path / "gone")))
    with pytest.raises(MaquetteError, match=r"There is no folder .*gone"):
        maquette.evaluate(run)


def test_a_foreign_folder_needs_photos_and_subject(run: Path) -> None:
    with pytest.raises(MaquetteError, match=r"is no run folder of maquette, so name what was trained on.*--photos"):
        maquette.evaluate(run / "checkpoints")
    with pytest.raises(MaquetteError, match=r"is no run folder of maquette, so name what was trained on.*--photos"):
        maquette.evaluate(run / "checkpoints", photos=run, subject=" ")
    with pytest.raises(MaquetteError, match=r"There is no folder .*nothing"):
        maquette.evaluate(run / "nothing")


def test_a_lora_of_another_base_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    for step in (1, 2):
        name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        down, up = torch.ones(2, 320), torch.ones(320, 2)
        tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        safetensors.save(tensors, tmp_path / "l" / f"x-{step:06d}.safetensors", {"ss_base_model_version": "sd_v1"})
    from maquette.families import load

    with pytest.raises(MaquetteError, match="LoRA for Stable Diffusion 1"):
        from maquette.evaluation.tuned import tuned

        with tuned(load("pocket"), tmp_path / "l/x-000001.safetensors", "zkw disc")(1.0):
            pass


def test_an_unknown_preference_names_the_known(run: Path) -> None:
    with pytest.raises(MaquetteError, match=r"prefer.*likeness.*balanced.*flexible"):
        maquette.evaluate(run, prefer="best")


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": "x", "batch_size": 8, **changes})


def test_the_end_of_a_training_measures_no_more_than_a_third_of_its_own_passes() -> None:
    assert affordable(settings(steps=2), 14, 2) is None
    size, cells = affordable(settings(steps=130, prior_preservation=True), 14, 4) or (None, 0)
    assert size == QUICK and 4 <= cells <= 12
    assert (affordable(settings(steps=2000), 14, 4) or (None, 0)) == (STANDARD, 12)
    middle = affordable(settings(steps=450), 14, 4)
    assert middle is not None and middle[0] in (SMALL, QUICK)


def test_words_and_whole_models_have_no_weight() -> None:
    assert weights_for("lora", [0.5, 1.0]) == [0.5, 1.0]
    for method in ("dreambooth", "textual-inversion", "pivotal"):
        assert weights_for(method, [0.5, 1.0]) == [1.0]


def test_a_training_ends_with_its_verdict(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "judge", lambda *a, **k: verdict_of(1, 0.7))
    monkeypatch.setattr(verdicts, "affordable", lambda *a: (QUICK, 4))
    values = {"photos": photos, "out": tmp_path / "disc", "steps": 2, "save_every_steps": 1, **SMALLEST}
    result = train.run(TrainConfig.parse(values))
    assert (result.chosen, result.weight, result.step) == (1, 0.7, 2)
    assert result.reasons[0].startswith("Take step 1 at weight 0.7")
    chosen, first = tmp_path / "disc/disc.safetensors", tmp_path / "disc/checkpoints/disc-000001.safetensors"
    assert safetensors.body_sha256(chosen) == safetensors.body_sha256(first)
    assert json.loads(chosen.with_suffix(".json").read_text())["preferred weight"] == 0.7
    assert "Take step 1 at weight 0.7" in (tmp_path / "disc/report.html").read_text()


def test_what_cannot_be_compared_is_told_and_the_last_is_taken(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*a: Any, **k: Any) -> Verdict:
        raise MaquetteError("the memory does not suffice")

    monkeypatch.setattr(verdicts, "judge", fails)
    monkeypatch.setattr(verdicts, "affordable", lambda *a: (QUICK, 4))
    values = {"photos": photos, "out": tmp_path / "disc", "steps": 2, "save_every_steps": 1, **SMALLEST}
    told: list[str] = []
    result = train.run(
        TrainConfig.parse(values),
        lambda event: told.append(event.data.get("message", "")) if event.kind == "warning" else None,
    )
    assert result.status == "finished" and result.chosen == 2
    assert "The checkpoints were not compared (the memory does not suffice); the last one was taken." in told
    without = train.run(TrainConfig.parse({**values, "out": tmp_path / "other", "choose": False}))
    assert without.chosen == 2


def test_clip_and_dino_add_the_papers_table_on_the_chosen_file(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def table(base: Any, change: Any, weight: float, photos: Any, subject: str, **options: Any) -> list[dict[str, Any]]:
        given.update(options, weight=weight, subject=subject)
        return [{"name": "trained", "dino": 0.612, "clip_i": None, "clip_t": None, "pres": 0.4, "div": None}]

    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: verdict_of(1, 0.7))
    monkeypatch.setattr(evaluate_judges, "open_dino", lambda folder, device: f"dino of {folder}")
    monkeypatch.setattr(evaluate_judges.dreambench, "table", table)
    result = maquette.evaluate(run, dino=tmp_path, kind="animal", per_prompt=4)
    assert given["dino"] == f"dino of {tmp_path}" and given["clip"] is None
    assert (given["weight"], given["living"], given["per_prompt"]) == (0.7, True, 4)
    assert result.encoders[0]["dino"] == 0.612
    assert json.loads((run / "evaluation.json").read_text())["encoders"] == result.encoders
    page = (run / "report.html").read_text()
    assert "By CLIP and DINO" in page and "0.612" in page and "PRES" in page


def test_a_twin_that_is_no_folder_is_told(run: Path) -> None:
    with pytest.raises(MaquetteError, match=r"There is no folder .*gone; name the twin's run folder"):
        maquette.evaluate(run, twin=run / "gone")


def test_quick_measures_as_many_cells_as_there_are_checkpoints_on_the_smallest_panel(tmp_path: Path) -> None:
    candidates = [evaluate.Candidate(step, tmp_path / f"{step}.safetensors") for step in (10, 20, 30)]
    extent = evaluate._extent(evaluate.EvaluateConfig(run=tmp_path, quick=True), candidates, [0.7, 1.0])
    assert (extent["size"], extent["cells"], list(extent["weights"])) == (QUICK, 3, [0.7, 1.0])
    with pytest.raises(MaquetteError, match="give quick or thorough, not both"):
        evaluate.EvaluateConfig.parse({"run": "x", "quick": True, "thorough": True}, "evaluate")


def test_transparency_says_where_the_subject_is(photos: Path, tmp_path: Path) -> None:
    """Also where training did not use it (`alpha_mask`): it is the outline that likeness needs."""
    picture = Image.open(photos / "0.png").convert("RGBA")
    alpha = np.zeros((64, 64), np.uint8)
    alpha[16:48, 8:40] = 255
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "0.png")
    shutil.copy(photos / "1.png", tmp_path / "1.png")
    cut, plain = verdicts.examples(read_folder(tmp_path, "zkw disc"), load("pocket"))
    assert cut.mask is not None and plain.mask is None
    assert torch.equal(cut.mask[0] > 0.5, torch.from_numpy(alpha > 0))


def test_the_base_predicts_what_the_run_said_it_does(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pocket predicts v; that it is asked for noise makes it a bad base, but the same one as in training."""
    out = tmp_path / "noise"
    values = {**SMALLEST, "prediction_type": "epsilon", "probe_prediction": False, "steps": 2}
    train.run(TrainConfig.parse({**values, "photos": photos, "out": out, "save_every_steps": 1}))
    given: list[Any] = []

    def judged(base: Any, *_: Any, **__: Any) -> Verdict:
        given.append(base.scheduler_config["prediction_type"])
        return verdict_of(1, 0.7)

    monkeypatch.setattr(evaluate, "judge", judged)
    maquette.evaluate(out)
    assert given == ["epsilon"]


def test_photos_keep_the_roles_they_had_in_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn anew among other photos, photos that were trained on would count as held out."""
    folder, out = Path(shutil.copytree(photos, tmp_path / "photos")), tmp_path / "disc"
    for i in range(3, 7):
        Image.fromarray(np.full((64, 64, 3), (20, 30 * i, 200), np.uint8)).save(folder / f"{i}.png")
    train.run(
        TrainConfig.parse({**SMALLEST, "photos": folder, "out": out, "steps": 2, "save_every_steps": 1, "held_out": 3})
    )
    roles = {photo["name"]: photo["role"] for photo in json.loads((out / "dataset.json").read_text())["photos"]}
    held, trained = ([name for name, role in roles.items() if role == kind] for kind in ("held", "instance"))
    (folder / trained[0]).unlink()
    (folder / held[0]).rename(folder / "renamed.png")
    Image.open(folder / trained[1]).rotate(180).save(folder / trained[1])
    Image.new("RGB", (64, 64), (1, 2, 3)).save(folder / "0-new.png")
    given: list[Any] = []

    def judged(base: Any, candidates: Any, photos: Any, *_: Any, **__: Any) -> Verdict:
        given.extend((example.name, example.held) for example in photos)
        return verdict_of(1, 0.7)

    monkeypatch.setattr(evaluate, "judge", judged)
    said: list[str] = []
    maquette.evaluate(out, on_event=lambda e: said.append(e.data["message"]) if e.kind == "warning" else None)
    assert {name for name, is_held in given if is_held} == {"renamed.png", *held[1:]}
    assert {name for name, is_held in given if not is_held} == set(trained[1:])
    assert said == [
        f"The photos in {folder} are not those of the run; changed since the run: {trained[1]}; left out, as the run "
        "did not see them: 0-new.png."
    ]
