"""Hub models: fetched only when named as such, and failures are one sentence."""

from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch

import maquette
from maquette import families
from maquette.errors import MaquetteError
from maquette.families import checkpoint
from maquette.families.pocket import WEIGHTS


def test_a_hub_name_is_fetched_and_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(repository: str, **_: Any) -> str:
        asked.append(repository)
        return str(WEIGHTS)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    base = families.load("hf:somebody/some-model")
    assert asked == ["somebody/some-model"]
    assert base.unet.config.cross_attention_dim == 128


def test_models_of_the_hub_are_blended_converted_and_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(WEIGHTS))
    maquette.convert("hf:somebody/some-model", "single-file", tmp_path / "one.safetensors")
    maquette.blend(["hf:somebody/some-model", "pocket"], tmp_path / "two.safetensors")
    (tmp_path / "mine.toml").write_text(
        '[models]\na = "hf:somebody/some-model"\nb = "one.safetensors"\n'
        '[[steps]]\nname = "both"\nmodels = ["a", "b"]\nalpha = 0.3\n'
    )
    maquette.blend([], tmp_path / "three.safetensors", recipe=tmp_path / "mine.toml")
    for name in ("one", "two", "three"):
        found, own = checkpoint.read(tmp_path / f"{name}.safetensors"), checkpoint.read(WEIGHTS)
        assert torch.equal(found.parts["unet"]["conv_in.weight"], own.parts["unet"]["conv_in.weight"])
    told = maquette.inspect(tmp_path / "two.safetensors").metadata["modelspec.merged_from"]
    assert told.strip() == "some-model, pocket"
    with pytest.raises(MaquetteError, match=r"two\.safetensors and hf:somebody/some-model have the same weights"):
        maquette.extract(tmp_path / "two.safetensors", "hf:somebody/some-model", tmp_path / "x.safetensors", rank=2)


def test_a_name_without_the_prefix_is_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("went to the hub"))
    with pytest.raises(MaquetteError, match="somebody/some-model does not exist"):
        families.load("somebody/some-model")


@pytest.mark.parametrize("name", ["hf:", "hf:model", "hf:a/b/c", "hf:../x/y"])
def test_other_spellings_are_refused(name: str) -> None:
    with pytest.raises(MaquetteError, match="write hf:owner/name"):
        families.load(name)


def test_without_a_network_the_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("connection refused\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MaquetteError, match=r"hf:a/b could not be fetched from the hub \(connection refused\)"):
        families.load("hf:a/b")


def test_another_program_s_long_reason_is_cut_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("word " * 100)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MaquetteError, match=r"from the hub \((word ){60}…\); check name and network"):
        families.load("hf:a/b")


def test_an_error_without_a_word_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MaquetteError, match=r"from the hub \(TimeoutError\); check name and network"):
        families.load("hf:a/b")


def test_where_fetching_is_forbidden_the_sentence_says_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MaquetteError, match=r"^hf:a/b is not on this computer, .*set HF_HUB_OFFLINE=0, or name .*\.$"):
        families.load("hf:a/b")
