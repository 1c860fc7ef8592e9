"""Adapters under the names of other programs: real names, every kind that a program carries, nothing lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette import adapters
from maquette.adapters import writing
from maquette.adapters.embeddings import Embedding
from maquette.adapters.file import Adapter
from maquette.errors import MaquetteError
from maquette.formats import tensor_files

DOCUMENT = Path(__file__).parents[2] / "docs" / "lora-files.md"
BLOCK = "unet.down_blocks.0.attentions.0"
LINEAR = f"{BLOCK}.transformer_blocks.0.attn2.to_k"
PROJECTION, CONV = f"{BLOCK}.proj_in", "unet.down_blocks.0.resnets.0.conv1"
TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
SHAPES = {LINEAR: (16, 768), PROJECTION: (16, 16, 1, 1), CONV: (16, 16, 3, 3), TEXT: (16, 768)}
R = 2


def factors(kind: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    out, inner, *kernel = shape
    flat, ones = torch.Size(shape[1:]).numel(), [1] * len(kernel)
    low = {"lora_down.weight": torch.randn(R, inner, *kernel), "lora_up.weight": torch.randn(out, R, *ones)}
    low["alpha"] = torch.tensor(3.0)
    if kind == "LoCon, Tucker":
        if not kernel:
            return low
        down, up = torch.randn(R, inner, 1, 1), torch.randn(out, R, 1, 1)
        return {"lora_down.weight": down, "lora_mid.weight": torch.randn(R, R, *kernel), "lora_up.weight": up}
    if kind.startswith("DoRA"):
        return low | {
            "dora_scale": 1 + (torch.rand(out, 1, *ones) if "output" in kind else torch.rand(1, inner, *ones))
        }
    if kind == "LoHa":
        return {f"hada_w{i}_{s}": torch.randn(*n) for i in (1, 2) for s, n in (("a", (out, R)), ("b", (R, flat)))}
    if kind == "LoKr":
        return {"lokr_w1": torch.randn(4, 4), "lokr_w2": torch.randn(out // 4, inner // 4, *kernel)}
    if kind == "GLoRA":
        return {"a1.weight": torch.randn(inner, R), "a2.weight": torch.randn(R, inner),
                "b1.weight": torch.randn(out, R), "b2.weight": torch.randn(R, inner, *kernel)}  # fmt: skip
    if kind == "IA3":
        return {"weight": torch.randn(out), "on_input": torch.tensor(0)}
    if kind in ("OFT", "BOFT"):
        return {"oft_blocks": 0.1 * torch.randn(*([2] if kind == "BOFT" else []), 4, 4, 4), "alpha": torch.tensor(0.0)}
    if kind == "full difference":
        return {"diff": torch.randn(shape), "diff_b": torch.randn(out)}
    return low


KINDS = ("LoRA, LoCon", "LoCon, Tucker", "DoRA per output", "DoRA per input", "LoHa", "LoKr", "GLoRA", "IA3", "OFT",
         "BOFT", "full difference")  # fmt: skip


def adapter(kind: str, names: tuple[str, ...] = tuple(SHAPES), family: str = "sd_v1") -> Adapter:
    torch.manual_seed(0)
    state = {f"{name}.{part}": t for name in names for part, t in factors(kind, SHAPES[name]).items()}
    return adapters.from_state_dict(state, {"ss_base_model_version": family, "note": "kept"}, "it")


def changes(one: Adapter) -> dict[str, Tensor]:
    torch.manual_seed(1)
    weights = {name: torch.randn(SHAPES[name]) for name in SHAPES}
    return {name: one.delta(name, weights[name]) for name in one.modules}


def rows() -> dict[str, list[str]]:
    """The table of docs/lora-files.md whose first column is "written as": kind -> cells, one a target."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == "written as")
        if inside and not set(line) <= set("|-"):
            found[cells[0]] = cells[1:]
    return found


def test_the_table_has_every_kind_and_target() -> None:
    assert rows().pop("written as") == [f"`{target}`" for target in writing.TARGETS]
    assert set(rows()) == {"written as", *KINDS}


@pytest.mark.parametrize("target", writing.TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell(kind: str, target: str, tmp_path: Path) -> None:
    """✓: written and read again with the same changes. lossy: refused by its name."""
    cell = rows()[kind][writing.TARGETS.index(target)]
    one = adapter(kind, (LINEAR,) if target == "attn-procs" else tuple(SHAPES))
    out = tmp_path / ("out" if target == "peft" else "out.safetensors")
    if cell == "lossy":
        with pytest.raises(MaquetteError, match=f"it cannot be written for {writing.PROGRAMS[target]}: "):
            one.save(out, target)
        assert not list(tmp_path.iterdir())
        return
    assert cell == "✓"
    one.save(out, target)
    again = adapters.load(out)
    assert again.modules.keys() == one.modules.keys() and again.family == "sd1"
    for name, change in changes(one).items():
        found = changes(again)[name]
        assert torch.allclose(found.reshape(change.shape), change, atol=1e-4), name
        shift = one.bias_delta(name)
        assert shift is None or torch.equal(shift, again.bias_delta(name))


@pytest.mark.parametrize("target", writing.TARGETS)
def test_strengths_that_diffusers_keeps_in_the_metadata_count_once(target: str, tmp_path: Path) -> None:
    state = {f"{LINEAR}.lora_{side}.weight": torch.randn(n) for side, n in (("A", (R, 768)), ("B", (16, R)))}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": R, "unet.lora_alpha": 4 * R}), "note": "kept"}
    one = adapters.from_state_dict(state, metadata, "it")
    product = state[f"{LINEAR}.lora_B.weight"] @ state[f"{LINEAR}.lora_A.weight"]
    assert torch.allclose(one.delta(LINEAR), 4 * product, atol=1e-4)
    out = tmp_path / ("out" if target == "peft" else "out.safetensors")
    one.save(out, target)
    file = tensor_files.read(out / "adapter_model.safetensors" if target == "peft" else out)
    assert file.metadata["note"] == "kept" and "lora_adapter_metadata" not in file.metadata
    assert torch.allclose(adapters.load(out).delta(LINEAR), 4 * product, atol=1e-4)


@pytest.mark.parametrize("kind", ["LoRA", "LoCon, Tucker", "LoHa", "LoKr"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64])
def test_the_strength_costs_no_precision(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Eight bits have no room for alpha / rank beside their numbers, nor have sixteen for a tiny one."""
    torch.manual_seed(0)
    tensors = {}
    for name in (LINEAR, CONV):
        made = {part: 0.1 * t for part, t in factors(kind, SHAPES[name]).items() if part != "alpha"}
        if kind == "LoKr":  # whose alpha counts beside a factor that is a product itself
            made = {"lokr_w1_a": torch.randn(4, 1), "lokr_w1_b": torch.randn(1, 4), "lokr_w2": made["lokr_w2"]}
        tensors |= {f"{name}.{part}": t.to(dtype) for part, t in made.items()}
        tensors[f"{name}.alpha"] = torch.tensor(7e-4)
    source = adapters.from_state_dict(tensors, {}, "a LoRA")
    expected = changes(source)
    for target in ["peft"] if kind in ("LoHa", "LoKr") else ["diffusers", "peft"]:
        out = tmp_path / (target if target == "peft" else f"{target}.safetensors")
        source.save(out, target)
        read = adapters.load(out)
        for name, change in changes(read).items():
            lost = torch.linalg.vector_norm(change - expected[name]) / torch.linalg.vector_norm(expected[name])
            assert lost < 1e-3, (target, name)
            # the programs multiply them as they are
            assert len({t.dtype for part, t in read.modules[name].factors.items() if part != "alpha"}) == 1


def test_names_are_those_of_the_programs(tmp_path: Path) -> None:
    one = adapter("LoRA, LoCon")
    found = {}
    for target in ("comfyui", "onetrainer"):
        one.save(tmp_path / f"{target}.safetensors", target)
        found[target] = set(tensor_files.read(tmp_path / f"{target}.safetensors").tensors)
    assert "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_up.weight" in found["comfyui"]
    assert "diffusion_model.input_blocks.1.0.in_layers.2.alpha" in found["comfyui"]
    text = "transformer.text_model.encoder.layers.0.mlp.fc1.lora_down.weight"
    assert f"text_encoders.clip_l.{text}" in found["comfyui"]
    assert "unet.input_blocks.1.1.proj_in.lora_down.weight" in found["onetrainer"]
    assert "clip_l.text_model.encoder.layers.0.mlp.fc1.lora_up.weight" in found["onetrainer"]
    adapter("LoRA, LoCon", (LINEAR,)).save(tmp_path / "old.safetensors", "attn-procs")
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"
    assert set(tensor_files.read(tmp_path / "old.safetensors").tensors) == {
        f"{layer}.{s}.weight" for s in ("down", "up")
    }


def test_sdxls_second_encoder_and_sd2s_have_their_names(tmp_path: Path) -> None:
    names = [f"lora_te{i}_text_model_encoder_layers_0_mlp_fc1" for i in (1, 2)]
    names.append("lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k")
    state = {}
    for name in names:
        state |= {f"{name}.lora_down.weight": torch.ones(2, 2048), f"{name}.lora_up.weight": torch.ones(4, 2)}
    xl = adapters.from_state_dict(state, {}, "xl")
    for target, first, second in (("comfyui", "text_encoders.clip_l.", "text_encoders.clip_g."),
                                  ("onetrainer", "clip_l.", "clip_g.")):  # fmt: skip
        xl.save(tmp_path / f"{target}.safetensors", target)
        written = set(tensor_files.read(tmp_path / f"{target}.safetensors").tensors)
        assert any(key.startswith(first) for key in written) and any(key.startswith(second) for key in written)
        assert adapters.load(tmp_path / f"{target}.safetensors").modules.keys() == xl.modules.keys()
    adapter("LoRA, LoCon", (TEXT,), "sd_v2").save(tmp_path / "two.safetensors", "comfyui")
    assert all(k.startswith("text_encoders.clip_h.") for k in tensor_files.read(tmp_path / "two.safetensors").tensors)


@pytest.mark.parametrize(("family", "ndim"), [("sd_v1", 4), ("sd_v2", 2)])
def test_projections_have_the_familys_shape(family: str, ndim: int, tmp_path: Path) -> None:
    """1 × 1 convolutions in Stable Diffusion 1, matrices in 2, whatever the file had; diffusers takes no other."""
    one = adapter("LoRA, LoCon", (PROJECTION,), family)
    for part in ("lora_down.weight", "lora_up.weight"):
        one.modules[PROJECTION].factors[part] = one.modules[PROJECTION].factors[part].flatten(1)
        if ndim == 2:
            one.modules[PROJECTION].factors[part] = one.modules[PROJECTION].factors[part][..., None, None]
    one.save(tmp_path / "x.safetensors", "diffusers")
    assert {tensor.ndim for tensor in tensor_files.read(tmp_path / "x.safetensors").tensors.values()} == {ndim}


@pytest.mark.parametrize("ending", [".pt", ".bin", ".ckpt"])
def test_pickles_are_written_and_read(ending: str, tmp_path: Path) -> None:
    one = adapter("LoRA, LoCon")
    one.save(tmp_path / f"x{ending}", "kohya", torch.float16)
    file = tensor_files.read(tmp_path / f"x{ending}")
    assert file.pickled and {t.dtype for t in file.tensors.values()} == {torch.float16}
    again = changes(adapters.load(tmp_path / f"x{ending}"))
    assert all(torch.allclose(again[name], change, rtol=1e-2, atol=0.1) for name, change in changes(one).items())
    assert torch.load(tmp_path / f"x{ending}", weights_only=True).keys() == one.state_dict().keys()


def test_words_stay_or_lie_beside(tmp_path: Path) -> None:
    one = adapter("LoRA, LoCon")
    one.embeddings = [Embedding("zkw", (torch.ones(2, 768),), "sd1")]
    assert one.save(tmp_path / "one.safetensors", "onetrainer") == []
    assert [word.name for word in adapters.load(tmp_path / "one.safetensors").embeddings] == ["zkw"]
    [beside] = one.save(tmp_path / "two.safetensors", "comfyui")
    assert beside.name == "two-zkw.safetensors" and not adapters.load(tmp_path / "two.safetensors").embeddings


def test_a_name_of_no_layer_has_no_other_name(tmp_path: Path) -> None:
    state = {"lora_unet_strange_thing.lora_down.weight": torch.ones(2, 4),
             "lora_unet_strange_thing.lora_up.weight": torch.ones(4, 2)}  # fmt: skip
    one = adapters.from_state_dict(state | adapter("LoRA, LoCon").state_dict(), {}, "it")
    for target in ("comfyui", "onetrainer", "diffusers", "peft"):
        with pytest.raises(MaquetteError, match=re.escape("lora_unet_strange_thing is no layer of Stable Diffusion")):
            one.save(tmp_path / ("x" if target == "peft" else "x.safetensors"), target)
