"""Tensors told without torch: as torch tells them, for every type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maquette.errors import MaquetteError
from maquette.formats import numbers, safetensors, tensor_files

FLOATS = [name for name, dtype in safetensors.DTYPES.items() if dtype.is_floating_point]


def looked_at(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, numbers.Numbers]:
    safetensors.save(tensors, path)
    return numbers.look(safetensors.read_header(path))


@pytest.mark.parametrize("name", safetensors.DTYPES)
def test_every_type_is_told_as_torch_tells_it(name: str, tmp_path: Path) -> None:
    dtype = safetensors.DTYPES[name]
    tensors = {"many": torch.ones(3, 4, 1, 1).to(dtype), "one": torch.tensor(1).to(dtype)}
    found = looked_at(tmp_path / "a.safetensors", tensors)
    for key, tensor in tensors.items():
        told = found[key]
        assert (told.shape, told.ndim, told.numel()) == (tuple(tensor.shape), tensor.ndim, tensor.numel())
        assert f"torch.{told.dtype}" == str(tensor.dtype)
        assert told.is_floating_point() == tensor.is_floating_point() and told.is_complex() == tensor.is_complex()
        assert told.is_finite()
        assert bytes(safetensors.tensor_bytes(told.tensor())) == bytes(safetensors.tensor_bytes(tensor))
    if not dtype.is_complex:
        assert float(found["one"]) == 1 and int(found["one"]) == 1
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        float(found["many"])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 448.0, -0.0, 1.5])
def test_numbers_that_are_none(name: str, number: float, tmp_path: Path) -> None:
    """The last of more than are looked at together; behind it others that are none."""
    dtype = safetensors.DTYPES[name]
    tensor = torch.zeros(numbers._BLOCK + 3, dtype=dtype)
    tensor[-1] = number
    behind = torch.full((5,), float("nan"), dtype=dtype)
    found = looked_at(tmp_path / "a.safetensors", {"a": tensor, "b": behind})
    assert found["a"].is_finite() == bool(torch.isfinite(tensor[-1].float()))
    assert not found["b"].is_finite()


@pytest.mark.parametrize("name", [name for name in FLOATS if not name.startswith("F8")])
@pytest.mark.parametrize("number", [0.1, -3e-5, 12345.678, 0.0])
def test_one_number(name: str, number: float, tmp_path: Path) -> None:
    tensor = torch.tensor([number]).to(safetensors.DTYPES[name])
    assert float(looked_at(tmp_path / "a.safetensors", {"a": tensor})["a"]) == float(tensor)


def test_what_a_tensor_can_do_besides(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    told = looked_at(tmp_path / "a.safetensors", {"a": tensor})["a"]
    assert told.reshape(-1, 1).shape == (12, 1) and told[None].shape == (1, 3, 4) and len(told) == 3
    assert torch.equal(told.reshape(2, -1).tensor(), tensor.reshape(2, 6))
    assert torch.equal(told[1], tensor[1]) and torch.equal(told.T, tensor.T) and torch.equal(told * 2, tensor * 2)
    assert torch.equal(told.float(), tensor)
    with pytest.raises(ValueError, match="no shape"):
        told.reshape(5, -1)


def test_files_are_looked_at_as_they_are_read(tmp_path: Path) -> None:
    safetensors.save({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"key": "value"})
    found, read = tensor_files.look(tmp_path / "a.safetensors"), tensor_files.read(tmp_path / "a.safetensors")
    assert found.metadata == read.metadata and found.pickled == read.pickled
    assert found.tensors.keys() == read.tensors.keys() and isinstance(found.tensors["a"], numbers.Numbers)
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert tensor_files.look(tmp_path / "a.pt").pickled
    (tmp_path / "page.safetensors").write_text("%PDF-1.7 nothing")
    for how in (tensor_files.look, tensor_files.read):
        with pytest.raises(MaquetteError, match="is a PDF, not a file of weights"):
            how(tmp_path / "page.safetensors")


def test_a_file_without_tensors(tmp_path: Path) -> None:
    assert looked_at(tmp_path / "a.safetensors", {}) == {}
    assert looked_at(tmp_path / "b.safetensors", {"a": torch.zeros(0, 3)})["a"].is_finite()
