"""What a LoRA file says of its photos, in the words of Kohya's trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from maquette.config import TrainConfig
from maquette.data.buckets import plan
from maquette.data.layouts import read_folder
from maquette.families.sd.spec import SD1
from maquette.families.sdxl.spec import SDXL
from maquette.training.metadata import Facts


def write(folder: Path, captions: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for number, caption in enumerate(captions):
        Image.new("RGB", (128, 128), (40 * number, 90, 160)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)


def told(folder: Path, reg: Path | None = None, spec: Any = SD1, **values: Any) -> dict[str, str]:
    config = TrainConfig.parse({"photos": folder, "batch_size": 1, "steps": 10, "alpha": 16.0, "reg": reg, **values})
    dataset = plan(read_folder(folder, config.subject, reg=reg), 64)
    base = SimpleNamespace(spec=spec, source="b", content_hash="c", vae_source="", scheduler_config={})
    return Facts(config, base, dataset).metadata("disc", 10)  # type: ignore[arg-type]


CASES: list[tuple[dict[str, list[str]], dict[str, dict[str, int]]]] = [
    (
        {
            "10_ohwx man": ["photo of ohwx man, Red Hat", "ohwx man, red hat"],
            "3_qrt dog": ["qrt dog, grass", "qrt dog"],
        },
        {
            "10_ohwx man": {"photo of ohwx man": 1, "red hat": 2, "ohwx man": 1},
            "3_qrt dog": {"qrt dog": 2, "grass": 1},
        },
    ),
    (
        {"10_ohwx man": ["ohwx man, A"], "10_qrt dog": ["qrt dog, B"]},
        {"10_ohwx man": {"ohwx man": 1, "a": 1}, "10_qrt dog": {"qrt dog": 1, "b": 1}},
    ),
    (
        {"1_a x": ["a x, T", "a x,, t ,T"], "2_b y": ["b y, T"], "4_c z": ["c z"]},
        {"1_a x": {"a x": 2, "t": 3}, "2_b y": {"b y": 1, "t": 1}, "4_c z": {"c z": 1}},
    ),
]


@pytest.mark.parametrize(("folders", "tags"), CASES)
def test_every_subject_stands_under_its_own_folder(
    folders: Mapping[str, list[str]], tags: dict[str, dict[str, int]], tmp_path: Path
) -> None:
    for name, captions in folders.items():
        write(tmp_path / "img" / name, captions)
    facts = told(tmp_path / "img")
    counts = {name: {"n_repeats": int(name.split("_")[0]), "img_count": len(found)} for name, found in folders.items()}
    assert json.loads(facts["ss_dataset_dirs"]) == counts
    assert json.loads(facts["ss_tag_frequency"]) == tags


def test_one_kohya_folder_named_itself(tmp_path: Path) -> None:
    write(tmp_path / "7_ohwx man", ["ohwx man"])
    assert json.loads(told(tmp_path / "7_ohwx man")["ss_dataset_dirs"]) == {
        "7_ohwx man": {"n_repeats": 7, "img_count": 1}
    }


def test_a_plain_folder_is_called_by_its_subject_and_keeps_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "secret", ["ohwx man, smile"])
    write(tmp_path / "secret" / "2019_beach", ["ohwx man, Beach"])
    facts = told(tmp_path / "secret", subject="ohwx man")
    assert json.loads(facts["ss_dataset_dirs"]) == {"ohwx man": {"n_repeats": 1, "img_count": 2}}
    assert json.loads(facts["ss_tag_frequency"]) == {"ohwx man": {"beach": 1, "ohwx man": 2, "smile": 1}}


def test_folders_of_a_data_set_file_and_of_regularization(tmp_path: Path) -> None:
    write(tmp_path / "men", ["ohwx man, Hat"])
    write(tmp_path / "dogs", ["qrt dog", "qrt dog, Hat"])
    write(tmp_path / "reg" / "1_man", ["man"])
    write(tmp_path / "reg" / "2_dog", ["dog"])
    subsets = "".join(
        f"[[datasets.subsets]]\nimage_dir = '{(tmp_path / name).as_posix()}'\nnum_repeats = {n}\n"
        for name, n in (("men", 2), ("dogs", 1))
    )
    (tmp_path / "set.toml").write_text(f"[[datasets]]\nresolution = 64\ncaption_extension = '.txt'\n{subsets}")
    facts = told(tmp_path / "set.toml", tmp_path / "reg")
    men, dogs = {"n_repeats": 2, "img_count": 1}, {"n_repeats": 1, "img_count": 2}
    assert json.loads(facts["ss_dataset_dirs"]) == {"men": men, "dogs": dogs}
    assert json.loads(facts["ss_tag_frequency"])["dogs"] == {"qrt dog": 2, "hat": 1}
    one, two = {"n_repeats": 1, "img_count": 1}, {"n_repeats": 2, "img_count": 1}
    assert json.loads(facts["ss_reg_dataset_dirs"]) == {"1_man": one, "2_dog": two}


def test_the_layer_of_the_text_encoder_and_the_optimizers_arguments(tmp_path: Path) -> None:
    write(tmp_path / "p", ["ohwx man"])
    facts = told(tmp_path / "p", clip_skip=3, optimizer_args={"betas": [0.9, 0.99], "eps": 1e-7})
    assert facts["modelspec.encoder_layer"] == "3" and facts["ss_optimizer"] == "adamw(betas=[0.9, 0.99],eps=1e-07)"
    facts = told(tmp_path / "p", spec=SDXL)
    assert facts["modelspec.encoder_layer"] == "2" and facts["ss_optimizer"] == "adamw"
