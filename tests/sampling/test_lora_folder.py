"""Where a prompt's LoRAs are found: links, all suffixes, PEFT's folders; a broken neighbour speaks for nobody."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from maquette import adapters
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.sampling.lora_folder import find_loras, known_lora, lora_hash

NAME = "unet.mid_block.attentions.0.proj_in"


def write(path: Path, value: float = 1.0, **metadata: str) -> Path:
    tensors = {f"{NAME}.lora_down.weight": torch.full((2, 8), value), f"{NAME}.lora_up.weight": torch.ones(8, 2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".safetensors":
        safetensors.save(tensors, path, metadata)
    else:
        torch.save(tensors, path)
    return path


def found(name: str, folder: Path) -> Path:
    return find_loras([name], folder)[name]


def test_a_message_names_some_of_many() -> None:
    names = [f"robot-{step:06}" for step in range(10, 160, 10)]
    known = {name: Path(name) for name in (*names, *(f"checkpoints/{name}" for name in names))}
    with pytest.raises(MaquetteError, match=r"there are robot-000010, .*robot-000120 and 3 more\.$"):
        known_lora("nobody at all", known)
    with pytest.raises(MaquetteError, match=r"there are a/x\.$"):
        known_lora("nobody at all", {"a/x": Path("x")})
    with pytest.raises(MaquetteError, match=r"there are none\.$"):
        known_lora("nobody at all", {})


def test_a_folder_of_many_names_some(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"lora-{i:02}.safetensors").write_bytes(b"")
    with pytest.raises(MaquetteError, match=r"it holds lora-00, .*, lora-11 and 8 more\. Did you mean lora-19\?"):
        find_loras(["lora-19x"], tmp_path)


def test_linked_folders_are_searched_and_a_circle_ends(tmp_path: Path) -> None:
    real = write(tmp_path / "real" / "deep" / "linked.safetensors").parent.parent
    loras = tmp_path / "loras"
    loras.mkdir()
    (loras / "shared").symlink_to(real, target_is_directory=True)
    (loras / "again").symlink_to(real, target_is_directory=True)
    (real / "deep" / "round").symlink_to(loras, target_is_directory=True)
    (loras / "nowhere").symlink_to(tmp_path / "absent")
    assert os.path.samefile(found("linked", loras), real / "deep" / "linked.safetensors")
    with pytest.raises(MaquetteError, match=r"There is no LoRA 'other' in .*; it holds linked\."):
        found("other", loras)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".PT", ".SAFETENSORS", ".SafeTensors"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "sub" / f"old{suffix}")
    assert found("old", tmp_path) == path
    assert list(adapters.load(path).modules) == [NAME]


def test_a_folder_of_peft_has_the_name_of_the_folder(tmp_path: Path) -> None:
    adapter = adapters.load(write(tmp_path / "x" / "it.safetensors"))
    adapter.save(tmp_path / "loras" / "person", "peft")
    te = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    adapter.modules[te] = adapter.modules[NAME]
    adapter.save(tmp_path / "loras" / "both", "peft")
    for name, count in (("person", 1), ("both", 2)):
        path = found(name, tmp_path / "loras")
        assert path == tmp_path / "loras" / name and len(adapters.load(path).modules) == count
        assert found(name, path) == path.resolve()
    with pytest.raises(MaquetteError, match=r"it holds both, person\."):
        found("adapter_model", tmp_path / "loras")


def test_a_broken_neighbour_says_nothing_about_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x09\0\0\0\0\0\0\0{nonsense")
    (tmp_path / "empty.safetensors").touch()
    told = write(tmp_path / "file.safetensors", ss_output_name="first try")
    assert found("first try", tmp_path) == told
    with pytest.raises(MaquetteError, match="There is no LoRA 'second try'"):
        found("second try", tmp_path)
    with pytest.raises(MaquetteError, match=r"broken\.safetensors"):
        adapters.load(found("broken", tmp_path))


def test_two_files_of_one_name(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "it.safetensors")
    write(tmp_path / "b" / "it.safetensors", note="other metadata, same numbers")
    assert found("it", tmp_path) == first
    write(tmp_path / "c" / "it.pt")
    with pytest.raises(MaquetteError, match="Two different files are called it"):
        found("it", tmp_path)


def test_hidden_folders_and_a_runs_state_hold_no_loras(tmp_path: Path) -> None:
    for folder in (".trash", "state"):
        write(tmp_path / folder / "it.safetensors")
    with pytest.raises(MaquetteError, match=r"holds no LoRA \(\.safetensors, \.pt, \.ckpt, \.bin, or a folder"):
        found("it", tmp_path)


def test_the_hash_is_the_one_of_a1111(tmp_path: Path) -> None:
    """Of a safetensors file all behind the header, of a pickle the whole file."""
    file, pickled = write(tmp_path / "a.safetensors", note="x"), write(tmp_path / "a.pt")
    raw = file.read_bytes()
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert lora_hash(file) == hashlib.sha256(body).hexdigest()
    assert lora_hash(pickled) == hashlib.sha256(pickled.read_bytes()).hexdigest()


def test_the_hash_of_a_file_that_changes_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, hashed = write(tmp_path / "a.safetensors", note="x"), []
    body = safetensors.body_sha256
    monkeypatch.setattr(safetensors, "body_sha256", lambda path: (hashed.append(path), body(path))[1])
    first = lora_hash(file)
    assert lora_hash(file) == first and len(hashed) == 1
    safetensors.save({"a": torch.ones(3)}, file)
    assert lora_hash(file) == body(file) != first and len(hashed) == 2
    file.unlink()
    with pytest.raises(MaquetteError, match=r"a\.safetensors cannot be read"):
        lora_hash(file)
