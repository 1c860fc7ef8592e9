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


def test_files_of_one_step_count_once(tmp_path: Path) -> None:
    """Kohya's, saved by epochs and by steps; of the last step the file without a number."""
    for name, steps in (("man-000001", "40"), ("man-step00000040", "40"), ("man-000002", "80"), ("man", "80")):
        write(tmp_path, name, ss_steps=steps, ss_session_id="7")
    assert found(tmp_path) == [(40, "man-000001"), (80, "man")]


def test_epochs_and_steps_are_not_taken_for_one_another(tmp_path: Path) -> None:
    for name in ("man-000001", "man-step00000500", "man"):
        write(tmp_path, name)
    with pytest.raises(MaquetteError, match=r"such as man-step00000500.* and man-000001.*one kind into a folder"):
        find_candidates(tmp_path)


def test_ai_toolkits_steps(tmp_path: Path) -> None:
    for name in ("my_man", "my_man_000000250", "my_man_000000500"):
        write(tmp_path, name)
    assert found(tmp_path) == [(250, "my_man_000000250"), (500, "my_man_000000500"), (501, "my_man")]
    assert find_candidates(tmp_path)[0].unit == "step"


def test_onetrainers_steps(tmp_path: Path) -> None:
    names = ["man-2026-01-31_23-59-59-save-90-3-0", "man-2026-02-01_00-04-10-save-120-4-0"]
    for name in names:
        write(tmp_path, name)
    assert found(tmp_path) == [(90, names[0]), (120, names[1])]
    write(tmp_path, "dog-2026-02-01_00-04-10-save-120-4-0")
    with pytest.raises(MaquetteError, match="checkpoints of 2 runs"):
        find_candidates(tmp_path)


def test_diffusers_folders(tmp_path: Path) -> None:
    for folder in (tmp_path / "checkpoint-1000", tmp_path / "checkpoint-500", tmp_path):
        folder.mkdir(exist_ok=True)
        write(folder, "pytorch_lora_weights")
    assert [(c.step, c.file.parent.name, c.unit) for c in find_candidates(tmp_path)] == [
        (500, "checkpoint-500", "step"), (1000, "checkpoint-1000", "step"), (1001, tmp_path.name, "step"),
    ]  # fmt: skip


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
