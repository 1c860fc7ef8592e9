from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import maquette
from maquette import adapters, families
from maquette.adapters.embeddings import Embedding, save
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.base import BaseModel
from maquette.report.pages import policy_of, style_sheet
from maquette.sampling.apply_loras import Folded
from maquette.stages.grid import GridConfig, run
from tests.sampling.random_loras import write_lora

PROMPT = "a red cat <lora:r:1>"
AXES = {"x": "weight=0.4, 0.8", "y": "checkpoint=10, 20", "z": "search=red, blue"}


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    base = families.load("pocket")
    write_lora(base, folder / "r-000010.safetensors", name="r")
    write_lora(base, folder / "r-000020.safetensors", seed=1, name="r")
    return folder


def config(out: Path | None, **values: Any) -> GridConfig:
    return GridConfig.parse({"prompt": PROMPT, "steps": 1, "width": 64, "height": 64, "out": out, **values}, "grid")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cell_is_the_picture_that_generate_draws(loras: Path, tmp_path: Path) -> None:
    result = run(config(tmp_path / "g", lora_dir=loras, seed=5, **AXES))
    assert (result.status, result.drawn, result.kept) == ("finished", 8, 0)
    alone = maquette.generate(
        "a blue cat <lora:r-000020:0.8>", out=tmp_path, lora_dir=loras, seed=5, steps=1, width=64, height=64
    )
    cell = tmp_path / "g" / "cells" / "z2-y2-x2.png"
    assert cell.read_bytes() == Path(alone.paths[0]).read_bytes()
    assert str(cell) == result.cells[-1]
    with Image.open(result.picture or "") as sheet:
        assert sheet.width > 2 * 96 and sheet.height > 4 * 64


def test_bases_and_loras_are_loaded_once(loras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    loads, reads, folds = families.load, adapters.load, Folded.of

    def load(source: str, *rest: Any) -> BaseModel:
        heard.append(f"base {source}")
        return loads(source, *rest)

    def read(path: Path, **rest: Any) -> Any:
        heard.append(f"lora {Path(path).stem}")
        return reads(path, **rest)

    def fold(*told: Any, **options: Any) -> Any:
        heard.append("fold")
        return folds(*told, **options)

    monkeypatch.setattr(families, "load", load)
    monkeypatch.setattr(adapters, "load", read)
    monkeypatch.setattr(Folded, "of", fold)
    run(config(tmp_path / "g", lora_dir=loras, seed=5, **AXES))
    assert heard.count("base pocket") == 1
    assert [each for each in heard if each.startswith("lora")] == ["lora r-000010", "lora r-000020"]
    assert heard.count("fold") == 4  # two LoRAs at two weights, whatever the words


def test_a_grid_that_was_ended_goes_on_to_the_same_bytes(loras: Path, tmp_path: Path) -> None:
    whole = run(config(tmp_path / "whole", lora_dir=loras, **AXES))
    seed = json.loads((tmp_path / "whole" / "grid.json").read_text())["asked"]["seeds"]
    out, cancel = tmp_path / "parts", threading.Event()
    shutil.copytree(tmp_path / "whole", out)
    for name in ("grid.png", "grid.html", "cells"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.data["done"] == 3:
            assert event.data["of"] == 8
            cancel.set()

    first = run(config(out, lora_dir=loras, **AXES), stop, cancel)
    assert (first.status, first.drawn, first.picture) == ("stopped", 3, None)
    assert not (out / "grid.png").exists()
    (out / "cells" / "z1-y1-x1.png").write_bytes(b"half a pict")  # as a broken disk leaves it
    second = run(config(out, lora_dir=loras, **AXES))
    assert (second.status, second.drawn, second.kept) == ("finished", 6, 2)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    third = run(config(out, lora_dir=loras, **AXES))
    assert (third.drawn, third.kept, third.cells[0]) == (0, 8, str(out / "cells" / "z1-y1-x1.png"))
    assert json.loads((out / "grid.json").read_text())["asked"]["seeds"] == seed
    assert whole.warnings == second.warnings


@pytest.mark.heavy
def test_a_killed_grid_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    axes = ["--x", "seed=1-5", "--y", "cfg=2, 4", "--steps", "6", "--width", "64", "--height", "64"]
    words = [sys.executable, "-m", "maquette", "grid", "a cat", *axes, "--out", str(tmp_path / "killed")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as program:
        while len(list((tmp_path / "killed").glob("cells/*.png"))) < 3:
            assert program.poll() is None
            time.sleep(0.02)
        program.kill()
    assert len(list((tmp_path / "killed").glob("cells/*.png"))) < 10
    values = {"prompt": "a cat", "x": "seed=1-5", "y": "cfg=2, 4", "steps": 6}
    again = run(config(tmp_path / "killed", **values))
    assert again.status == "finished" and again.kept >= 3
    run(config(tmp_path / "whole", **values))
    left, whole = bytes_of(tmp_path / "killed"), bytes_of(tmp_path / "whole")
    drawn = {name: data for name, data in left.items() if not name.endswith(".part") and name != "grid.json"}
    assert drawn == {name: data for name, data in whole.items() if name != "grid.json"}  # the seeds that none used


def test_another_grid_is_never_mixed_in(loras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "loras"
    shutil.copytree(loras, copy)
    out = tmp_path / "g"
    values = {"lora_dir": copy, "x": "weight=0.5", "y": "checkpoint=10", "seed": 1}
    run(config(out, **values))
    with pytest.raises(MaquetteError, match=r"g holds another grid; give another --out"):
        run(config(out, **{**values, "x": "weight=0.6"}))
    write_lora(families.load("pocket"), copy / "r-000010.safetensors", seed=3, name="r")
    with pytest.raises(MaquetteError, match="holds a grid drawn with files that have changed since; give another"):
        run(config(out, **values))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(MaquetteError, match="other is there and holds no grid; give another --out"):
        run(config(tmp_path / "other", **values))
    monkeypatch.chdir(tmp_path)
    values["lora_dir"] = Path("loras")
    assert run(config(None, **values)).out == str(Path("out/grid"))
    assert run(config(None, **{**values, "x": "weight=0.6"})).out == str(Path("out/grid-2"))
    again = run(config(None, **values))
    assert (again.out, again.drawn) == (str(Path("out/grid")), 0)


@pytest.mark.parametrize("changed", ["words/zkwword.safetensors", "styles.csv", "wild/colour.txt", "blocks.txt"])
def test_words_that_have_changed_since_are_never_mixed_in(loras: Path, tmp_path: Path, changed: str) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "wild").mkdir()
    width = families.load("pocket").token_widths[0]
    save(Embedding("zkwword", (torch.ones(1, width),), "pocket"), tmp_path / "words" / "zkwword.safetensors", "a1111")
    (tmp_path / "words" / "other.pt").write_bytes(b"x")
    (tmp_path / "styles.csv").write_text("name,prompt\nNoto,noto style\n")
    (tmp_path / "wild" / "colour.txt").write_text("red\n")
    (tmp_path / "blocks.txt").write_text("HALF:" + ",".join(["0.5"] * 14))
    values = {
        "prompt": "a __colour__ zkwWord <lora:r-000010:1:lbw=HALF>", "lora_dir": loras, "x": "seed=1", "steps": 1,
        "embedding_dir": tmp_path / "words", "styles": ["Noto"], "styles_file": tmp_path / "styles.csv",
        "wildcard_dir": tmp_path / "wild", "block_weights": tmp_path / "blocks.txt",
    }  # fmt: skip
    run(config(tmp_path / "g", **values))
    (tmp_path / changed).write_bytes((tmp_path / changed).read_bytes() + b"\n")
    with pytest.raises(MaquetteError, match="holds a grid drawn with files that have changed since"):
        run(config(tmp_path / "g", **values))


def test_nothing_is_written_where_a_lora_is_missing(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    values = {"prompt": "a cat <lora:r:1>", "lora_dir": tmp_path / "loras", "x": "weight=0, 1"}
    with pytest.raises(MaquetteError, match="There is no LoRA 'r'"):
        run(config(tmp_path / "g", **values))
    assert not (tmp_path / "g").exists()


def test_the_page_runs_and_loads_nothing(tmp_path: Path) -> None:
    prompt = 'a <b>"cat"</b> & dog'
    result = maquette.grid(
        prompt, x="seed=1, 2", y="search=cat, <i>hen", out=tmp_path / "g", steps=1, width=64, height=64
    )
    page = Path(result.page or "").read_text(encoding="utf-8")
    assert f'content="{policy_of(style_sheet("grid.css"))}"'.replace("'", "&#39;") in page
    assert "<b>&#34;cat" not in page and "<i>" not in page and "<script" not in page
    assert "a &lt;b&gt;&#34;&lt;i&gt;hen&#34;&lt;/b&gt; &amp; dog" in page  # the text of a picture
    assert page.count("data:image/png;base64,") == 4
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links == set(re.findall(r'<td id="([^"]+)"', page)) == {"z1y1x1", "z1y1x2", "z1y2x1", "z1y2x2"}
    assert not re.findall(r'(?:href|src)="(?!#|data:)', page)
