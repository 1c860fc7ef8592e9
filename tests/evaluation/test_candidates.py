"""Checkpoints in folders of maquette and of Kohya's trainer."""

from pathlib import Path

import pytest
import torch

from maquette import MaquetteError
from maquette.evaluation.candidates import find_candidates
from maquette.formats import safetensors


def write(folder: Path, name: str, **metadata: str) -> None:
    down, up = torch.ones(2, 4), torch.ones(4, 2)
    tensors = {"lora_unet_x.lora_down.weight": down, "lora_unet_x.lora_up.weight": up}
    safetensors.save(tensors, folder / f"{name}.safetensors", metadata)


def found(folder: Path) -> list[tuple[int, str]]:
    return [(c.step, c.file.stem) for c in find_candidates(folder)]


def test_kohyas_epochs_and_the_last_file_without_number(tmp_path: Path) -> None:
    for name in ("man", "man-000002", "man-000004"):
        write(tmp_path, name)
    assert found(tmp_path) == [(2, "man-000002"), (4, "man-000004"), (5, "man")]
    assert find_candidates(tmp_path)[0].unit == "epoch"


def test_kohyas_steps(tmp_path: Path) -> None:
    for name in ("man-step00000500", "man-step00001000"):
        write(tmp_path, name)
    assert found(tmp_path) == [(500, "man-step00000500"), (1000, "man-step00001000")]
    assert find_candidates(tmp_path)[0].unit == "step"


def test_the_steps_in_the_metadata_win(tmp_path: Path) -> None:
    write(tmp_path, "man-000001", ss_steps="40", ss_session_id="7")
    write(tmp_path, "man", ss_steps="80", ss_session_id="7")
    assert found(tmp_path) == [(40, "man-000001"), (80, "man")]


def test_two_runs_are_named(tmp_path: Path) -> None:
    write(tmp_path, "cat-000001")
    write(tmp_path, "dog-000001")
    with pytest.raises(MaquetteError, match=r"checkpoints of 2 runs, such as cat-000001.*and dog-000001"):
        find_candidates(tmp_path)


def test_two_runs_of_one_name_are_told_apart_by_their_session(tmp_path: Path) -> None:
    write(tmp_path, "cat-000001", ss_session_id="1")
    write(tmp_path, "cat-000002", ss_session_id="2")
    with pytest.raises(MaquetteError, match="checkpoints of 2 runs"):
        find_candidates(tmp_path)


def test_one_checkpoint_is_no_choice(tmp_path: Path) -> None:
    write(tmp_path, "cat")
    with pytest.raises(MaquetteError, match=r"holds one checkpoint, cat\.safetensors: there is nothing to choose"):
        find_candidates(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="holds no LoRA files"):
        find_candidates(tmp_path)
