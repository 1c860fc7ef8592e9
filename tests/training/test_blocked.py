"""What `maquette check` refuses, `maquette train` refuses as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.stages import check, train

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def nameless(quadrants: MakeImage, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, side in enumerate((96, 98, 100)):
        quadrants(side, side).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a photo of a disc, number {i}")
    return folder


def test_captions_that_never_name_the_subject_stop_both(nameless: Path, tmp_path: Path) -> None:
    found = check.run(check.CheckConfig(photos=nameless, subject="zkw disc"))
    assert [p.kind for p in found.blocking] == ["no_subject"]
    config = TrainConfig.parse({"photos": nameless, "out": tmp_path / "run", "subject": "zkw disc", "steps": 1})
    with pytest.raises(MaquetteError) as error:
        train.run(config)
    assert found.blocking[0].message in str(error.value) and "--prefix 'zkw disc, '" in str(error.value)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_prefix_of_the_run_names_the_subject_too(nameless: Path, tmp_path: Path) -> None:
    values = {"photos": nameless, "out": tmp_path / "run", "subject": "zkw disc", "steps": 1, "sample_prompts": []}
    result = train.run(TrainConfig.parse(values | {"caption_prefix": "zkw disc,", "rank": 2, "batch_size": 1}))
    assert result.status == "finished"
