"""Safetensors: interchange with the reference library, determinism, and sentences for broken files."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.errors import MaquetteError
from maquette.formats import safetensors


def every_dtype() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 5, generator=generator)
    tensors = {
        f"t{i}": numbers.to(dtype) for i, dtype in enumerate(safetensors.DTYPES.values()) if dtype.is_floating_point
    }
    tensors |= {
        "byte": torch.arange(5, dtype=torch.uint8),
        "long": torch.arange(4),
        "truth": torch.tensor([True, False]),
    }
    return tensors | {"scalar": torch.tensor(4.0), "nothing": torch.zeros(0, 4)}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bytes(safetensors.tensor_bytes(a)) == bytes(safetensors.tensor_bytes(b))
    )


def test_reads_what_the_library_writes_and_the_reverse(tmp_path: Path) -> None:
    tensors = every_dtype()
    save_file(tensors, tmp_path / "theirs.safetensors", {"a": "b"})
    safetensors.save(tensors, tmp_path / "ours.safetensors", {"a": "b"})
    ours, theirs = safetensors.load(tmp_path / "theirs.safetensors"), load_file(tmp_path / "ours.safetensors")
    assert ours.keys() == theirs.keys() == tensors.keys()
    assert all(same(ours[k], tensors[k]) and same(theirs[k], tensors[k]) for k in tensors)
    assert safetensors.read_metadata(tmp_path / "ours.safetensors") == {"a": "b"}


def test_body_is_laid_out_as_the_library_does_so_hashes_agree(tmp_path: Path) -> None:
    tensors = every_dtype()
    save_file(tensors, tmp_path / "theirs.safetensors", {"x": "y"})
    safetensors.save(tensors, tmp_path / "ours.safetensors")
    expected = safetensors.body_sha256(tmp_path / "theirs.safetensors")
    assert safetensors.body_sha256(tmp_path / "ours.safetensors") == expected == safetensors.tensors_sha256(tensors)


def test_same_content_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    tensors = every_dtype()
    safetensors.save(tensors, tmp_path / "a.safetensors", {"k": "1", "a": "2"})
    safetensors.save(dict(reversed(tensors.items())), tmp_path / "b.safetensors", {"a": "2", "k": "1"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_number_among_others_is_written_whatever_its_stride(tmp_path: Path) -> None:
    numbers = torch.arange(8.0)
    one, none = numbers[4::4], numbers[::2][:0]
    assert one.stride() == (4,) and one.is_contiguous()
    safetensors.save({"one": one, "none": none, "some": numbers[::2]}, tmp_path / "a.safetensors")
    found = safetensors.load(tmp_path / "a.safetensors")
    assert found["one"].tolist() == [4.0] and found["none"].tolist() == [] and found["some"].tolist() == [0, 2, 4, 6]


def test_cast_while_writing_touches_only_floats(tmp_path: Path) -> None:
    safetensors.save(
        {"f": torch.tensor([1.5, 2.5]), "i": torch.arange(3)}, tmp_path / "x.safetensors", dtype=torch.float16
    )
    loaded = safetensors.load(tmp_path / "x.safetensors")
    assert loaded["f"].dtype == torch.float16 and loaded["f"].tolist() == [1.5, 2.5]
    assert loaded["i"].dtype == torch.int64


def test_writing_to_a_loaded_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.save({"f": torch.zeros(1000)}, path)
    before = path.read_bytes()
    tensor = safetensors.load(path)["f"]
    tensor.fill_(7)
    assert tensor.sum() == 7000 and path.read_bytes() == before


def test_misaligned_tensors_are_read(tmp_path: Path) -> None:
    """A foreign writer may put a float after an odd number of bytes."""
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    raw = json.dumps(header).encode()
    body = bytes([1, 2, 3]) + torch.tensor([1.5, -2.0]).numpy().tobytes()
    (tmp_path / "x.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + body)
    loaded = safetensors.load(tmp_path / "x.safetensors")
    assert loaded["a"].tolist() == [1, 2, 3] and loaded["b"].tolist() == [1.5, -2.0]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.save({"f": torch.zeros(3)}, path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), safetensors.atomic_writer(path) as file:
        file.write(b"half")
        raise RuntimeError("power cut")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.safetensors"]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaquetteError, match="cannot be written"):
        safetensors.save({"f": torch.zeros(3)}, tmp_path / "file" / "x.safetensors")
