"""Never a black picture that is called saved: the file at fault is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from maquette import families
from maquette.adapters import embeddings
from maquette.adapters.embeddings import Embedding
from maquette.adapters.kohya_names import written
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.sampling.finite import NotFiniteError, fault, require_finite_picture
from maquette.stages import generate, regularize
from maquette.stages.generate import GenerateConfig, GenerateResult
from tests.sampling.random_loras import random_adapter, write_lora

PROMPT = "a photo of a cat"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.fixture
def spoil() -> Iterator[Any]:
    """A function that puts a number into a parameter; it is taken out again afterwards."""
    kept: list[tuple[Tensor, Tensor]] = []

    def put(parameter: Tensor, number: float) -> None:
        kept.append((parameter, parameter.detach().clone()))
        parameter.data.view(-1)[0] = number

    yield put
    for parameter, before in kept:
        parameter.data.copy_(before)


def draw(base: BaseModel, folder: Path, prompt: str = PROMPT, **options: Any) -> GenerateResult:
    values = {"prompt": prompt, "out": folder / "out", "steps": 2, "seed": 1, "lora_dir": folder, **options}
    return generate.run(GenerateConfig.parse(values), base=base)


def refused(base: BaseModel, folder: Path, prompt: str = PROMPT, **options: Any) -> str:
    with pytest.raises(NotFiniteError) as caught:
        draw(base, folder, prompt, **options)
    assert not list((folder / "out").glob("*"))
    return str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_lora_is_named(base: BaseModel, tmp_path: Path, number: float) -> None:
    """Before anything is drawn, for such a file is refused where it is read."""
    adapter = random_adapter(base)
    name = next(name for name in adapter.modules if name.startswith("unet."))
    adapter.modules[name].factors["lora_up.weight"][0, 0] = number
    adapter.save(tmp_path / "bad.safetensors")
    write_lora(base, tmp_path / "good.safetensors")
    with pytest.raises(
        MaquetteError, match=rf"bad\.safetensors.*{written('pocket', name)}\.lora_up\.weight.* NaN or infinite numbers"
    ):
        draw(base, tmp_path, f"{PROMPT} <lora:good:0.5><lora:bad:0.8>")
    assert not (tmp_path / "out").exists()
    adapter.source = "bad.safetensors"
    assert fault(base, [adapter]).startswith(f"bad.safetensors has NaN or infinite numbers ({name}.lora_up.weight)")


def test_a_lora_whose_product_is_infinite_is_named(base: BaseModel, tmp_path: Path) -> None:
    adapter = random_adapter(base)
    for module in adapter.modules.values():
        for factor in ("lora_up.weight", "lora_down.weight"):
            module.factors[factor] *= 1e30
    adapter.save(tmp_path / "huge.safetensors")
    message = refused(base, tmp_path, f"{PROMPT} <lora:huge:0.5>")
    assert message.startswith(f"The numbers became infinite while pocket with {tmp_path / 'huge.safetensors'} was")
    assert len(draw(base, tmp_path)) == 1  # the base is as it was


@pytest.mark.parametrize("part", ["unet", "text_encoders", "vae"])
def test_a_base_is_named(base: BaseModel, tmp_path: Path, spoil: Any, part: str) -> None:
    network = getattr(base, part)
    network = network[0] if isinstance(network, list) else network
    spoil(list(network.parameters())[-1], float("nan"))
    write_lora(base, tmp_path / "good.safetensors")
    for prompt in (PROMPT, f"{PROMPT} <lora:good:0.5>"):
        assert refused(base, tmp_path, prompt).startswith("pocket has NaN or infinite numbers (")


def test_a_vae_of_its_own_is_named(
    base: BaseModel, tmp_path: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "vae_source", "other.vae.safetensors")
    spoil(base.vae.get_parameter("encoder.conv_in.weight"), float("nan"))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    message = refused(base, tmp_path, init_image=tmp_path / "red.png")
    assert message.startswith("other.vae.safetensors has NaN or infinite numbers (encoder.conv_in.weight)")


def test_an_infinite_bias_is_no_white_picture(base: BaseModel, tmp_path: Path, spoil: Any) -> None:
    spoil(base.vae.get_parameter("decoder.conv_out.bias"), float("inf"))
    assert "(decoder.conv_out.bias)" in refused(base, tmp_path)


def test_an_embedding_is_named(base: BaseModel, tmp_path: Path) -> None:
    width = base.text_encoders[0].config.hidden_size  # type: ignore[union-attr]
    vectors = torch.zeros(2, int(width))  # type: ignore[arg-type]
    vectors[1, 3] = float("nan")
    (tmp_path / "words").mkdir()
    embeddings.save(Embedding("zkwq", (vectors,), "unknown"), tmp_path / "words" / "zkwq.safetensors")
    with pytest.raises(MaquetteError, match=r"zkwq\.safetensors.* NaN or infinite numbers"):
        draw(base, tmp_path, "a photo of zkwq", embedding_dir=tmp_path / "words")
    assert fault(base, [], [Embedding("zkwq", (vectors,), "unknown")]).startswith("The embedding zkwq has NaN")


def test_numbers_that_grow_too_large_are_no_file_s_fault(base: BaseModel) -> None:
    sound = torch.zeros(1, 3, 2, 2)
    require_finite_picture(sound, base)
    with pytest.raises(NotFiniteError, match=r"became infinite while pocket was drawing in float32: lower the mult"):
        require_finite_picture(sound / 0, base)
    adapter = random_adapter(base)
    adapter.source = "mine.safetensors"
    assert "pocket with mine.safetensors was drawing" in fault(base, [adapter])


def test_regularize_draws_no_black_pictures(base: BaseModel, tmp_path: Path, spoil: Any) -> None:
    spoil(next(base.unet.parameters()), float("nan"))
    values = {"out": tmp_path / "reg", "prompt": ["a photo of a cat"], "count": 2, "steps": 1}
    with pytest.raises(MaquetteError, match="pocket has NaN"):
        regularize.run(regularize.RegularizeConfig.parse(values), base=base)
    assert not list(tmp_path.glob("reg/*"))


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e9", "-100.5", "0.5:nan", "te=nan:unet=1"])
def test_multipliers_without_sense(base: BaseModel, tmp_path: Path, number: str) -> None:
    write_lora(base, tmp_path / "good.safetensors")
    with pytest.raises(MaquetteError, match=rf"<lora:good:{number}> has a multiplier that is not between -100 and 100"):
        draw(base, tmp_path, f"{PROMPT} <lora:good:{number}>")
