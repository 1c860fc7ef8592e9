"""Broken and hostile files: refused in one sentence, quickly, in bounded memory, and nothing of theirs is run."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.errors import MaquetteError
from maquette.formats import pickles, safetensors, tensor_files

CORPUS = {**hostile.SAFETENSORS, **hostile.PICKLES}


def test_corpus_is_large_enough() -> None:
    assert len(CORPUS) == len(hostile.SAFETENSORS) + len(hostile.PICKLES) >= 60


@pytest.mark.parametrize("name", CORPUS)
def test_refused_in_one_sentence(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, words = CORPUS[name]
    monkeypatch.chdir(tmp_path)  # the commands in the files would leave a file "trap" here
    path = tmp_path / "model.safetensors"
    path.write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MaquetteError) as caught:
        tensor_files.read(path)
    sentence = str(caught.value)
    assert words in sentence and str(path) in sentence
    assert "\n" not in sentence and len(sentence) < 400 + len(str(path))
    assert not (tmp_path / "trap").exists()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000, f"{grown} KiB more memory"


@pytest.mark.parametrize("twentieth", range(20))
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_anywhere(tmp_path: Path, kind: str, twentieth: int) -> None:
    tensors = {"a": torch.arange(300.0), "b": torch.zeros(40, 2)}
    path = tmp_path / "model.ckpt"
    if kind == "safetensors":
        safetensors.save(tensors, path)
    else:
        path.write_bytes(hostile.saved(tensors, _use_new_zipfile_serialization=kind == "zip"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * twentieth // 20])
    with pytest.raises(MaquetteError, match=r"model\.ckpt"):
        tensor_files.read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 10_000), value=st.integers(0, 255), kind=st.sampled_from(["safetensors", "zip", "legacy"])
)
def test_one_wrong_byte_is_refused_or_read_but_never_a_crash(
    tmp_path: Path, position: int, value: int, kind: str
) -> None:
    path = tmp_path / "model.ckpt"
    if kind == "safetensors":
        safetensors.save({"a": torch.arange(30.0), "b": torch.zeros(4, 2)}, path, {"key": "value"})
    else:
        path.write_bytes(hostile.saved({"a": torch.arange(30.0)}, _use_new_zipfile_serialization=kind == "zip"))
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] = value
    path.write_bytes(bytes(raw))
    try:
        for tensor in tensor_files.read(path).tensors.values():
            assert tensor.numel() <= 64
    except MaquetteError as error:
        assert "model.ckpt" in str(error)


def test_harmless_objects_of_trainers_are_left_out(tmp_path: Path) -> None:
    """numpy numbers and Lightning's bookkeeping stand in many real checkpoints; they are skipped, not looked up."""
    import numpy

    content = {
        "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3).half()},
        "global_step": 875000,
        "best": numpy.float64(0.25),
        "optimizer_states": [{"exp_avg": torch.zeros(2)}],
    }
    path = tmp_path / "model.ckpt"
    path.write_bytes(hostile.saved(content))
    read = pickles.load(path)
    assert list(read.tensors) == ["a.weight"]
    assert torch.equal(read.tensors["a.weight"], content["state_dict"]["a.weight"])
    assert read.metadata["global_step"] == "875000"


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_tensors_of_every_kind_come_back(tmp_path: Path, new_format: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    content = {
        "float": whole,
        "transposed": whole.T,
        "slice": whole[1:3, ::2],
        "half": whole.half(),
        "bfloat16": whole.bfloat16(),
        "long": torch.arange(5),
        "truth": torch.tensor([True, False]),
        "scalar": torch.tensor(7.0),
        "nothing": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(whole.clone()),
        "nested": {"inner": torch.ones(2)},
    }
    path = tmp_path / "x.pt"
    path.write_bytes(hostile.saved(content, _use_new_zipfile_serialization=new_format))
    read = pickles.load(path).tensors
    expected = {**content, "nested.inner": content.pop("nested")["inner"]}
    expected.pop("nested", None)
    assert read.keys() == expected.keys()
    assert all(read[k].dtype == expected[k].dtype and torch.equal(read[k], expected[k]) for k in expected)


def test_writing_to_a_tensor_never_reaches_the_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(hostile.saved({"a": torch.zeros(100)}))
    before = path.read_bytes()
    pickles.load(path).tensors["a"].fill_(3)
    assert path.read_bytes() == before


def test_nothing_is_imported_from_a_hostile_file(tmp_path: Path) -> None:
    """Looking a name up would import its module, and importing runs code."""
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\nfunction = print\n")
    path = tmp_path / "x.ckpt"
    path.write_bytes(hostile.archive(hostile.calling("evil_module", "function", "x")))
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from maquette.formats import tensor_files
try:
    tensor_files.read({str(path)!r})
except Exception as error:
    print(type(error).__name__, "evil_module" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["MaquetteError", "False"], result.stderr
    assert not (tmp_path / "trap").exists()


def test_a_reused_name_is_read_by_content(tmp_path: Path) -> None:
    """A .ckpt that is safetensors, and the reverse, open all the same."""
    safetensors.save({"a": torch.ones(3)}, tmp_path / "a.ckpt")
    (tmp_path / "b.safetensors").write_bytes(hostile.saved({"b": torch.ones(2)}))
    assert list(tensor_files.read(tmp_path / "a.ckpt").tensors) == ["a"]
    assert list(tensor_files.read(tmp_path / "b.safetensors").tensors) == ["b"]


@pytest.mark.parametrize("length", [128, 640, 896])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    raw = header + b" " * (length - len(header))
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + raw + bytes(8))
    assert tensor_files.read(tmp_path / "x.safetensors").tensors["a"].tolist() == [0, 0]


@pytest.mark.parametrize("name", CORPUS)
def test_the_command_line_says_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from maquette.cli.main import main

    make, words = CORPUS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(make())
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", "model.ckpt", "--json"])
    told = capsys.readouterr()
    assert leaving.value.code == 1 and told.out == ""
    assert words in told.err and "Traceback" not in told.err and told.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_broken_numbers_and_a_lora_of_another_family_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole files with the wrong content: inspect reports the numbers, generate refuses the LoRA, nothing is drawn."""
    from maquette.cli.main import main

    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    factors = {"lora_down.weight": torch.ones(4, 768), "lora_up.weight": torch.full((1280, 4), float("nan"))}
    safetensors.save({f"{layer}.{part}": t for part, t in factors.items()}, tmp_path / "nan.safetensors")
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(tmp_path / "nan.safetensors")])
    told = capsys.readouterr()
    assert leaving.value.code in (0, None)
    assert "problem: 1 tensors hold NaN or infinite numbers" in told.out
    arguments = ["generate", "a cat <lora:nan:1>", "--lora-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as leaving:
        main([*arguments, "--steps", "1"])
    told = capsys.readouterr()
    assert leaving.value.code == 1 and "Traceback" not in told.err
    assert f"nan.safetensors: {layer}.lora_up.weight holds NaN or infinite numbers." in told.err
    assert not (tmp_path / "out").exists()
