from __future__ import annotations

from pathlib import Path

import pytest

import maquette


def test_generate(tmp_path: Path) -> None:
    base = maquette.families.load("pocket")
    result = maquette.generate("a cat", base=base, steps=1, seed=3, out=tmp_path)
    again = maquette.generate("a cat", steps=1, seed=3, out=tmp_path)
    assert result.images[0].tobytes() == again.images[0].tobytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00001-3.png", "00002-3.png"]


def test_check(fault_folder: Path) -> None:
    heard: list[object] = []
    result = maquette.check(fault_folder, heard.append, subject="zkw robot")
    assert result.images == 5


def test_demo_photos(tmp_path: Path) -> None:
    written = maquette.demo_photos(tmp_path / "robot")
    assert len(written) == 14 and written[0].parent == tmp_path / "robot"
    found = maquette.check(tmp_path / "robot", subject="zkw robot")
    assert found.images == 14 and found.blocking == []
    (tmp_path / "robot" / "mine.txt").write_text("a note", "utf-8")
    with pytest.raises(maquette.MaquetteError, match=r"holds mine\.txt, which is not from the demonstration"):
        maquette.demo_photos(str(tmp_path / "robot"))


def test_every_name_offered_is_a_function_with_its_own_options() -> None:
    others = {
        "MaquetteError",
        "Pipeline",
        "blend",
        "compare",
        "convert",
        "demo_photos",
        "extract",
        "merge",
        "prune",
        "push",
        "resize",
        "resume",
    }
    for name in set(maquette.__all__) - others:
        with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
            getattr(maquette, name)("x", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.push("x", "hf:a/b", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.convert("x", "kohya", "y", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.compare("x", subject="zkw disc", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.resize("x", "y", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.extract("x", "y", "z", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.prune("x", "y", "z", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.merge("x", "y", "z", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'zzz'"):
        maquette.blend(["x", "y"], "z", zzz=1)
    with pytest.raises(maquette.MaquetteError, match="nowhere is not a run folder"):
        maquette.resume("nowhere")


def test_wrong_options_are_named() -> None:
    with pytest.raises(maquette.MaquetteError, match="unknown key 'step'; did you mean 'steps'"):
        maquette.generate("a cat", step=3)
    with pytest.raises(maquette.MaquetteError, match="unknown key 'learning_rat'; did you mean 'learning_rate'"):
        maquette.train("photos", learning_rat=3)


def test_subpackages_come_by_themselves() -> None:
    assert maquette.prompts.parse_networks("x <lora:f:0.8>")[0] == "x "
    assert maquette.formats.__name__ == "maquette.formats"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        maquette.trian  # noqa: B018
