"""A base that is opened once: LoRAs hot and scheduled, threads, previews, tiles, memory, half precision."""

from __future__ import annotations

import base64
import gc
import json
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maquette
from maquette import families
from maquette.adapters.file import Adapter
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.base import BaseModel
from maquette.fast.replayed import ReplayedDenoiser
from maquette.prompts import parse_networks
from maquette.sampling.apply_loras import Folded
from maquette.sampling.decoding import decoded
from maquette.sampling.enlarging import Enlargement, enlarged
from maquette.sampling.lora_tags import LoraTag, Wish, tags_of
from maquette.sampling.pipeline import Pipeline
from maquette.sampling.preview import rough
from maquette.sampling.tiled_vae import by_tiles, tiled
from tests.sampling.random_loras import write_lora

PROMPT = "a photo of a cat on a red background"


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    base = families.load("pocket")
    for seed, name in enumerate(("robot", "other")):
        write_lora(base, folder / f"{name}.safetensors", seed=seed, name=name)
    car = {"activation text": "zkw robot", "preferred weight": 0.5}
    (folder / "robot.json").write_text(json.dumps(car))
    return folder


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


def drawn(pipeline: Pipeline, tags: str = "", **options: Any) -> np.ndarray:
    made = pipeline.generate(PROMPT + tags, **{"steps": 2, "seed": 7, **options})
    return np.asarray(made[0].image).astype(int)


def parameters(base: BaseModel) -> list[torch.Tensor]:
    return [p.data for m in (base.unet, *base.text_encoders) for p in m.parameters()]


def test_loras_stay_in_and_come_out_to_the_bit(
    pipeline: Pipeline, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = parameters(pipeline.base)
    copies = [tensor.clone() for tensor in before]
    plain = drawn(pipeline)
    folded: list[str] = []
    fold = Folded.of

    def heard(base: BaseModel, wanted: Sequence[Wish], *rest: Any, **options: Any) -> Any:
        folded.extend(wish.adapter.source for wish in wanted)
        return fold(base, wanted, *rest, **options)

    monkeypatch.setattr(Folded, "of", heard)
    one = drawn(pipeline, "<lora:robot:0.7>", lora_dir=loras)
    assert (drawn(pipeline, "<lora:robot:0.7>", lora_dir=loras, seed=7) == one).all()
    assert len(folded) == 1  # once for both
    assert (drawn(pipeline, "<lora:other:1>", lora_dir=loras) != one).any()
    assert (drawn(pipeline, "<lora:robot:0.7>", lora_dir=loras) == one).all()
    assert (drawn(pipeline) == plain).all() and (plain != one).any()
    drawn(pipeline, "<lora:robot:0.7>", lora_dir=loras)
    pipeline.close()
    for now, then, copy in zip(parameters(pipeline.base), before, copies, strict=True):
        assert now.data_ptr() == then.data_ptr() and torch.equal(now, copy)


def test_a_changed_file_is_read_again(pipeline: Pipeline, loras: Path, tmp_path: Path) -> None:
    (tmp_path / "robot.safetensors").write_bytes((loras / "robot.safetensors").read_bytes())
    first = drawn(pipeline, "<lora:robot>", lora_dir=tmp_path)
    (tmp_path / "robot.safetensors").write_bytes((loras / "other.safetensors").read_bytes())
    import os

    os.utime(tmp_path / "robot.safetensors", (1, 1))
    assert (drawn(pipeline, "<lora:robot>", lora_dir=tmp_path) != first).any()


def test_what_equals_no_tag_and_what_equals_the_plain_tag(pipeline: Pipeline, loras: Path) -> None:
    def with_tag(tag: str) -> np.ndarray:
        return drawn(pipeline, tag, lora_dir=loras, steps=4, sampler="Euler")

    one = with_tag("<lora:robot:1>")
    ones = ",".join(["1"] * 14)  # BASE, six blocks in, the middle, six out
    for same in (f":lbw={ones}", ":lbw=ALL", ":start=0:stop=1", ":start=1", ":dyn=64", ":step=0-4"):
        assert (with_tag(f"<lora:robot:1{same}>") == one).all(), same
    assert (with_tag("<lyco:robot:1>") == one).all()
    none = drawn(pipeline, steps=4, sampler="Euler")
    assert (with_tag("<lora:robot:0>") == none).all()
    assert (with_tag("<lora:robot:1:lbw=NONE>") == none).all()
    assert (with_tag("<lora:robot:0:1:start=9>") == none).all()  # it would begin behind the end
    parts = [":lbw=" + ",".join(["0"] * 7 + ["1"] * 7), ":stop=0.5", ":start=0.5", ":dyn=1", ":step=2-3"]
    drawings = [with_tag(f"<lora:robot:1{part}>") for part in parts]
    assert len({each.tobytes() for each in (one, none, *drawings)}) == 2 + len(parts)
    both = "<lora:robot:0.6><lora:other:0.4>", "<lora:other:0.4><lora:robot:0.6>"
    assert (with_tag(both[0]) == with_tag(both[1])).all()


def test_what_is_kept_of_a_text_changes_no_bit(
    pipeline: Pipeline, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and values are computed once for each of three states of the weights: LoRAs begin and end between steps."""
    asked: list[int] = []
    layer = next(module for name, module in pipeline.base.unet.named_modules() if name.endswith("attn2.to_k"))
    tags = "<lora:robot:1:start=3><lora:other:0.7:stop=4>"
    how: dict[str, Any] = {"lora_dir": loras, "steps": 8, "sampler": "Euler", "batch_size": 2}
    with layer.register_forward_hook(lambda *_: asked.append(1)):
        kept = drawn(pipeline, tags, **how)
    assert len(asked) == 2 * 3
    monkeypatch.setattr(ReplayedDenoiser, "_remembered", lambda self, conditioning: conditioning)
    assert (drawn(pipeline, tags, **how) == kept).all()


def test_times_of_a_lora() -> None:
    def holds(tag: str, steps: int = 10) -> list[int]:
        told = tags_of(parse_networks(f"<lora:a:1:{tag}>")[1])[0]
        wish = Wish(Adapter("sd1", "lora", {}), 1.0, 1.0, None, told.start, told.stop)
        return [i for i in range(steps) if wish.at(i, steps).unet]

    assert holds("start=0.5") == [5, 6, 7, 8, 9]
    assert holds("stop=0.3") == [0, 1, 2]
    assert holds("start=4") == [3, 4, 5, 6, 7, 8, 9]
    assert holds("step=2-5") == [1, 2, 3, 4]
    assert holds("start=0.2:stop=0.4") == [2, 3]
    assert holds("stop=1") == holds("start=0") == list(range(10))
    assert tags_of(parse_networks("<lora:a:0.5:0.6:8>")[1]) == [LoraTag("a", 0.5, 0.6, 8)]


def test_lenient_and_activation(pipeline: Pipeline, loras: Path) -> None:
    told: list[Event] = []

    def text(tags: str, **options: Any) -> str:
        told.clear()
        made = pipeline.generate(PROMPT + tags, told.append, lora_dir=loras, steps=1, seed=1, **options)
        return made[0].infotext

    with pytest.raises(MaquetteError, match="There is no LoRA 'absent'"):
        text("<lora:absent:1>")
    assert "<lora:absent:1>" in text("<lora:absent:1>", lenient=True)
    assert next(e.data["message"] for e in told if e.kind == "warning").endswith("Drawn without it.")
    assert "zkw robot" not in text("<lora:robot>")
    hints = [e.data["message"] for e in told if e.kind == "finding"]
    asked = "robot is called by the words 'zkw robot', which the prompt lacks"
    assert hints == [f"{asked}: write them into it, or draw with activation."]
    assert f"{PROMPT}<lora:robot:0.5>, zkw robot" in text("<lora:robot>", activation=True)
    assert not [e for e in told if e.kind == "finding"]
    preferred = drawn(pipeline, ", zkw robot<lora:robot>", lora_dir=loras, activation=True)
    assert (preferred == drawn(pipeline, ", zkw robot<lora:robot:0.5>", lora_dir=loras)).all()


def test_threads_wait_for_each_other(pipeline: Pipeline, loras: Path) -> None:
    tags = ["", "<lora:robot:1>", "<lora:other:1>"]
    alone = [drawn(pipeline, tag, lora_dir=loras) for tag in tags]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: drawn(pipeline, tags[i % 3], lora_dir=loras)}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[i] == alone[i % 3]).all() for i in range(6))


def test_nothing_piles_up(pipeline: Pipeline, loras: Path) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    tags = ["", "<lora:robot:1>", "<lora:other:1>"]
    for tag in tags:
        drawn(pipeline, tag, lora_dir=loras, steps=1)
    before = tensors()
    for i in range(6):
        drawn(pipeline, tags[i % 3], lora_dir=loras, steps=1)
    assert tensors() <= before


def test_previews(pipeline: Pipeline) -> None:
    told: list[Event] = []
    made = pipeline.generate(PROMPT, told.append, steps=5, seed=7, preview_every=2, sampler="Euler", batch_size=2)
    previews = [event.data for event in told if event.kind == "preview"]
    assert [preview["step"] for preview in previews] == [2, 4]
    json.dumps(previews)
    last = base64.b64decode(previews[-1]["pictures"][0].split(",")[1])
    shown = np.asarray(Image.open(BytesIO(last)).convert("RGB")).astype(float)
    assert shown.shape == (16, 16, 3) and len(previews[0]["pictures"]) == 2
    small = np.asarray(made[0].image.resize((16, 16), Image.Resampling.BOX)).astype(float)
    assert np.abs(shown - small).mean() < 30


def test_rough_colours(pipeline: Pipeline) -> None:
    """Flat pictures come out in about their colours."""
    for colour in ((0.8, 0.2, 0.2), (0.2, 0.3, 0.8), (0.5, 0.5, 0.5)):
        flat = torch.tensor(colour)[None, :, None, None].expand(1, 3, 64, 64)
        with torch.no_grad():
            latents = pipeline.base.encode_images(flat * 2 - 1)[0]
        assert (rough(pipeline.base, latents).mean((0, 2, 3)) - torch.tensor(colour)).abs().max() < 0.15


def test_tiles(pipeline: Pipeline) -> None:
    base = pipeline.base
    pixels = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(pixels, (256, 192), mode="bilinear")
    with torch.no_grad():
        whole = base.encode_images(pixels * 2 - 1)[0]
        picture = base.decode(whole)
        with tiled(base, tile=32, overlap=8):
            parts = base.encode_images(pixels * 2 - 1)[0]
            again = base.decode(whole)
        with tiled(base):  # one tile is enough
            assert torch.equal(base.decode(whole), picture)
    assert parts.shape == whole.shape and again.shape == picture.shape
    assert (again - picture).abs().mean() < 0.02 and (parts - whole).abs().mean() < 0.1 * whole.std()
    assert "encode" not in vars(base.vae)
    x = torch.rand(2, 3, 50, 23)
    assert torch.allclose(by_tiles(lambda t: t, x, 16, 4, 1, up=True), x)


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """A base whose VAE is in half precision and gives numbers there that are not finite."""
    base = families.load("pocket")
    base.vae.half()
    decode = type(base).decode

    def overflow(self: Any, latents: torch.Tensor) -> torch.Tensor:
        pixels = decode(self, latents)
        return pixels * torch.nan if next(self.vae.parameters()).dtype == torch.float16 else pixels

    monkeypatch.setattr(type(base), "decode", overflow)
    return base


def test_a_vae_that_overflows_in_half_precision_goes_on_in_32_bits(overflowing: BaseModel) -> None:
    base, told = overflowing, list[Event]()
    pixels = decoded(base, torch.zeros(1, 4, 16, 16), told.append)
    assert bool(pixels.isfinite().all()) and next(base.vae.parameters()).dtype == torch.float32
    assert told[0].data["message"] == (
        "The VAE of pocket gave numbers that are not finite in half precision; it goes on in 32 bits."
    )


def test_hires_fix_by_pixels_goes_on_in_32_bits_too(overflowing: BaseModel) -> None:
    base, told = overflowing, list[Event]()
    size = Enlargement(96, 96, 96, 96)
    latents = enlarged(base, base, torch.zeros(2, 4, 16, 16), size, "Lanczos", told.append)
    assert latents.shape == (2, 4, 24, 24) and bool(latents.isfinite().all())
    assert [event.data["message"].endswith("it goes on in 32 bits.") for event in told] == [True]


def test_a_base_that_is_open_is_not_opened_otherwise(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="The base is open already: give vae and dtype where it is opened"):
        maquette.generate("a cat", base=pipeline, vae="other.safetensors", dtype="bf16", out=tmp_path)
    for base in (pipeline.base, pipeline):
        with pytest.raises(MaquetteError, match="The base is open already: give device where it is opened"):
            maquette.generate("a cat", base=base, device="cpu", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_pipeline_serves_generate(tmp_path: Path, loras: Path) -> None:
    prompt, how = PROMPT + "<lora:robot:1>", {"steps": 2, "seed": 7, "lora_dir": loras}
    with maquette.Pipeline("pocket") as pipeline:
        made = maquette.generate(prompt, base=pipeline, out=tmp_path, **how)
        again = pipeline.generate(prompt, **how)[0]
    assert made[0].tobytes() == again.image.tobytes() and made.infotexts == [again.infotext]
