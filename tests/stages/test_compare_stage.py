"""maquette compare: what is trained, how it goes on, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import maquette
from maquette.cli.main import main
from maquette.config import TrainConfig
from maquette.config.compare import METHODS, CompareConfig
from maquette.errors import MaquetteError
from maquette.evaluation.choice import Row
from maquette.evaluation.comparing import base_matters, ranking
from maquette.evaluation.panel import Size
from maquette.events import Cancelled, Event
from maquette.fleet import comparing as compare
from maquette.fleet import unchanged
from maquette.stages import compare_judge
from maquette.training.variants import variants
from tests.training.interrupted import make_photos

TINY = Size(photos=4, probed=1, timesteps=2, kept=1, others=1, pictures=2, steps=1, draws=1)


def config(**values: Any) -> CompareConfig:
    return CompareConfig.parse({"photos": "photos", "subject": "zkw disc", **values})


def names(**values: Any) -> list[str]:
    return [variant.name for variant in variants(config(**values), Path("out"))[0]]


def test_what_is_named_is_combined() -> None:
    assert names() == list(METHODS)
    assert names(methods=["lora,lokr"]) == ["lora", "lokr"]
    assert names(settings=["rank=4,16"]) == ["rank-4", "rank-16"]
    assert names(methods=["lora", "lokr"], settings=["rank=4,16"]) == [
        "lora-rank-4", "lora-rank-16", "lokr-rank-4", "lokr-rank-16",
    ]  # fmt: skip
    assert names(bases=["a.safetensors", "b.safetensors"]) == ["a", "b"]
    assert names(settings=["reg=/home/me/class-14,/home/me/class-56"]) == ["reg-class-14", "reg-class-56"]
    assert names(settings=["reg=here/class,there/class"]) == ["reg-here-class", "reg-there-class"]


def test_all_have_the_same_photos_seed_and_steps() -> None:
    found, left = variants(
        config(methods=["lora", "dreambooth"], steps=100, seed=3, settings=["batch_size=2"]), Path("o")
    )
    assert left == []
    common = {(str(v.config.photos), v.config.seed, v.config.steps, v.config.batch_size) for v in found}
    assert common == {("photos", 3, 100, 2)}
    assert [v.config.save_every_steps for v in found] == [25, 25]
    assert not any(v.config.choose for v in found)


def test_a_list_in_brackets_is_one_value_and_what_makes_no_sense_is_left_out() -> None:
    settings = ['layers=["attention"]', "prior_preservation=true,false"]
    found, left = variants(config(methods=["lora", "textual-inversion"], settings=settings), Path("o"))
    assert [v.name for v in found] == [
        "lora-prior_preservation-true", "lora-prior_preservation-false",
    ]  # fmt: skip
    assert len(left) == 2 and "textual-inversion" in left[0]
    assert found[0].config.layers == ["attention"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": ["lorra"]}, "there is no method 'lorra'; choose from lora, locon"),
        ({"methods": ["lora", "lora"]}, "one is named twice"),
        ({"bases": ["here/a.ckpt", "there/a.safetensors"]}, "two bases are called a, and runs are named after"),
        ({"subject": " "}, "subject is empty: name the rare word and the class"),
        ({"bases": ["a"]}, "bases compares two or more; for one give base"),
        ({"methods": ["lora"]}, "There is nothing to compare: name methods, bases, or a setting with several values"),
        ({"settings": ["method=lora,loha"]}, "method is no setting here, .* option for it: --methods lora,loha"),
        ({"settings": ["method=loha", "rank=4,8"], "methods": ["lora"]}, "option for it: --methods lora,loha"),
        ({"settings": ["base=a,b"]}, "base is no setting here, .* option for it: --base, or --bases twice"),
        ({"settings": ["prediction_type=epsilon,v_prediction"]}, "what the base predicts, of which one is right"),
        ({"settings": ["photos=a,b"]}, "photos is no setting here, .* option for it: PHOTOS"),
        ({"settings": ["steps=4,8"], "steps": 2}, "steps is no setting here, .* option for it: --steps"),
        ({"settings": ["rank=4,8", "rank=16"]}, r"rank is set twice: give all its values at once"),
        (
            {"settings": ["learning_rate=1e-4,0.0001"]},
            "learning_rate-0.0001 would be trained twice: give each value once",
        ),
        ({"settings": ["rnk=4,16"]}, "There is nothing to compare: .*unknown key 'rnk'; did you mean 'rank'"),
    ],
)
def test_what_cannot_be_compared_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        variants(config(**values), Path("o"))


def row(**values: float) -> Row:
    base = {"likeness": 0.8, "neighbour_drift": 0.1, "neighbours_margin": 1.0, "edit_retention": 0.9}
    return Row.of(1, 1.0, {name: [value] * 8 for name, value in {**base, **values}.items()})


def test_the_words_name_the_best_what_equals_it_and_why_others_are_behind() -> None:
    told = ranking(
        {"lora": row(), "dreambooth": row(neighbour_drift=1.5, neighbours_margin=0.4), "word": row(likeness=0.3)}
    )
    assert told[0].startswith("lora is best (score ")
    assert "dreambooth" in told[1] and "changes other things more" in told[1] and "less like the photos" in told[1]
    noisy = Row.of(1, 1.0, {**row().items, "likeness": [0.5, 1.08] * 4})
    assert ranking({"lora": row(), "lokr": noisy})[1] == "lokr does not differ from it by more than the noise."


def test_the_answer_on_bases_compares_with_what_was_trained_there() -> None:
    rows = {("a", "a"): row(), ("a", "b"): row(likeness=0.4), ("b", "b"): row(likeness=0.7), ("b", "a"): row()}
    told = base_matters(rows)
    assert told[0].startswith("Trained on a and used on b it is worse than one trained on b itself (score 0.")
    assert told[1].startswith("Trained on b and used on a it is as good as one trained on a itself")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_judge, "SMALL", TINY)
    monkeypatch.setattr(compare_judge, "WEIGHTS", (0.7, 1.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("compared") / "photos")


def test_a_comparison_is_stopped_goes_on_and_is_not_done_twice(
    photos: Path, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    values = {
        "photos": photos, "subject": "zkw disc", "methods": ["lora", "textual-inversion"], "steps": 2, "checkpoints": 2,
        "settings": ["batch_size=1"], "out": out,
    }  # fmt: skip
    cancel = threading.Event()

    def stop_after_one(event: Event) -> None:
        if event.kind == "progress" and event.data["what"] == "training" and event.data["done"] == 1:
            cancel.set()

    with pytest.raises(Cancelled):
        compare.run(CompareConfig.parse(values), stop_after_one, cancel)
    assert sorted(path.name for path in (out / "trained").iterdir()) == ["lora.json"]
    before = (out / "lora/lora.safetensors").stat().st_mtime_ns
    result = maquette.compare(**values)
    assert (out / "lora/lora.safetensors").stat().st_mtime_ns == before
    assert [(one.name, one.method, one.steps) for one in result.trainings] == [
        ("lora", "lora", 2), ("textual-inversion", "textual-inversion", 2),
    ]  # fmt: skip
    for one in result.trainings:
        assert one.file_bytes == Path(one.file).stat().st_size and one.seconds > 0
        assert one.memory_bytes is None or one.memory_bytes > 10_000_000
        assert {"likeness", "neighbours", "edit_retention"} <= one.values.keys()
        assert len(one.pictures) == TINY.pictures
    assert result.trainings[1].weight == 1.0 and "is best" in result.answers[0]
    page = (out / "compare.html").read_text()
    for text in ("textual-inversion", "prompts steer", result.trainings[0].prompts[1], "is best"):
        assert text in page
    assert (out / "pictures.png").exists()

    def never(*a: Any, **k: Any) -> None:
        raise AssertionError("it is all done")

    monkeypatch.setattr(compare_judge, "Room", never)
    words = ["compare", str(photos), "--subject", "zkw disc", "--methods", "lora,textual-inversion", "--steps", "2"]
    words += ["--checkpoints", "2", "--set", "batch_size=1", "--out", str(out)]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--json"])
    assert json.loads(capsys.readouterr().out)["trainings"] == [vars(one) for one in result.trainings]
    with pytest.raises(MaquetteError, match=r"holds another comparison .*choose another --out"):
        maquette.compare(**{**values, "steps": 3})
    more = photos / "more.txt"
    more.write_text("a caption")
    try:
        with pytest.raises(MaquetteError, match=rf"{more} is new since the comparison in {out} began"):
            maquette.compare(**values)
    finally:
        more.unlink()
    (out / "measured/lora.json").write_text('{"step": 1}')
    with pytest.raises(MaquetteError, match=r"lora\.json is damaged; remove it, and it is measured again"):
        maquette.compare(**values)


@pytest.mark.heavy
def test_a_comparison_that_was_killed_goes_on_where_it_was(photos: Path, tmp_path: Path, tiny: None) -> None:
    out = tmp_path / "c"
    values = {"photos": photos, "subject": "zkw disc", "methods": ["lora", "lokr"], "steps": 12, "checkpoints": 4}
    values |= {"settings": ["batch_size=1"], "out": out}
    words = ["compare", str(photos), "--subject", "zkw disc", "--methods", "lora,lokr", "--steps", "12"]
    words += ["--checkpoints", "4", "--set", "batch_size=1", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "maquette", *words], stdout=subprocess.DEVNULL)
    while not list(out.glob("lora/state/*/manifest.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (out / "trained").exists()
    result = maquette.compare(**values)
    assert [one.steps for one in result.trainings] == [12, 12]
    assert json.loads((out / "trained" / "lora.json").read_text())["start"] >= 3
    counts = {len(list(out.glob(f"{name}/checkpoints/*.safetensors"))) for name in ("lora", "lokr")}
    assert counts <= {4, 5}  # one may be that of the stop


def test_a_training_that_fails_says_why_and_a_taken_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    values = {"photos": photos, "subject": "zkw disc", "methods": ["lora", "lokr"]}
    with pytest.raises(MaquetteError, match=r"^lo\w+ could not be trained: .*none\.safetensors"):
        maquette.compare(**values, base=str(tmp_path / "none.safetensors"), out=tmp_path / "c", jobs=2)
    with pytest.raises(MaquetteError, match="is not empty; choose another --out"):
        maquette.compare(**values, out=photos)


def test_what_was_trained_on_must_not_change(tmp_path: Path) -> None:
    photos, base, out = tmp_path / "photos", tmp_path / "base.safetensors", tmp_path / "out"
    photos.mkdir()
    made = [TrainConfig.parse({"photos": photos, "subject": "zkw disc", "base": str(base), "rank": r}) for r in (4, 8)]
    unchanged.require(out, made)
    assert not out.exists()  # nothing is there to be compared with
    (photos / "a.png").write_bytes(b"a")
    base.write_bytes(b"b")
    unchanged.require(out, made)
    (photos / "notes.npz").write_bytes(b"another program's")
    unchanged.require(out, made)
    for path, before in ((photos / "a.png", b"a"), (photos / "a.txt", None), (base, b"b")):
        path.write_bytes(b"other")
        fault = "is new" if before is None else "has changed"
        with pytest.raises(MaquetteError, match=rf"{path} {fault} since the comparison in {out} began.*another --out"):
            unchanged.require(out, made)
        path.unlink()
        if before is not None:
            with pytest.raises(MaquetteError, match=rf"{path} is gone since .*put it back as it was"):
                unchanged.require(out, made)
            path.write_bytes(before)
    unchanged.require(out, made)
