"""maquette inspect: every kind of file is named rightly, with its figures and faults."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from maquette import adapters
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.families.pocket import POCKET, WEIGHTS
from maquette.formats import ldm, safetensors
from maquette.stages.inspect import InspectConfig, InspectResult, run
from maquette.stages.inspect_lora import trigger_words


def inspect(path: Path, **options: bool) -> InspectResult:
    return run(InspectConfig(path=path, **options))


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    safetensors.save(tensors, path, metadata)
    return path


@pytest.fixture(scope="module")
def pocket_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pocket") / "p.safetensors"
    save.write_single_file(checkpoint.read_folder(WEIGHTS, POCKET), path)
    return path


def test_a_whole_model(pocket_file: Path) -> None:
    found = inspect(pocket_file)
    raw = pocket_file.read_bytes()
    assert (found.kind, found.family, found.layout, found.variant) == ("model", "pocket", "ldm", "base")
    assert found.prediction_type == "v_prediction"
    assert set(found.parts) == {"UNet", "VAE", "text encoder"}
    assert found.parameters == sum(part["parameters"] for part in found.parts.values()) > 10_000_000
    assert list(found.dtypes) == ["float16"]
    assert found.size_bytes == len(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    assert found.hashes["sha256"] == sha256 and found.hashes["autov2"] == sha256[:10]
    assert found.hashes["old"] == hashlib.sha256(raw[0x100000:0x110000]).hexdigest()[:8]
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert found.hashes["autov3"] == hashlib.sha256(body).hexdigest()[:12]
    assert found.sentence == "p.safetensors is a whole model: maquette's pocket base, v-prediction."
    assert not found.problems
    json.dumps(found.to_json())


def test_a_folder() -> None:
    found = inspect(WEIGHTS)
    assert (found.kind, found.layout, found.prediction_type) == ("model", "diffusers", "v_prediction")
    assert len(str(found.hashes["content"])) == 64
    assert inspect(Path("pocket")).sentence == "pocket is a whole model: maquette's pocket base, v-prediction."


def sd1_unet(channels: int) -> dict[str, torch.Tensor]:
    """The few tensors that decide; the rest of a UNet does not matter for what a file is called."""
    block = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        "input_blocks.0.0.weight": torch.zeros(8, channels, 3, 3),
        "input_blocks.1.1.proj_in.weight": torch.zeros(8, 8, 1, 1),
        block: torch.zeros(8, 768),
        "out.2.weight": torch.zeros(4, 8, 3, 3),
    }


@pytest.mark.parametrize(
    "channels, variant",
    [(4, "base"), (9, "inpainting"), (8, "instruct-pix2pix"), (5, "depth"), (7, "7 input channels")],
)
def test_variants_by_input_channels(tmp_path: Path, channels: int, variant: str) -> None:
    found = inspect(write(tmp_path / "u.safetensors", sd1_unet(channels)))
    assert (found.kind, found.family, found.variant) == ("unet", "sd1", variant)


def prefixed(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_families_by_structure(tmp_path: Path) -> None:
    linear = sd1_unet(4) | {"input_blocks.1.1.proj_in.weight": torch.zeros(8, 8)}
    assert inspect(write(tmp_path / "a.safetensors", linear)).family == "sd2"
    assert (
        inspect(write(tmp_path / "b.safetensors", linear | {"label_emb.0.0.weight": torch.zeros(8, 8)})).family
        == "sdxl"
    )
    refiner = prefixed(linear | {"label_emb.0.0.weight": torch.zeros(8, 8)}, ldm.UNET)
    refiner[f"{ldm.REFINER_OPEN_CLIP}token_embedding.weight"] = torch.zeros(4, 8)
    path = write(tmp_path / "c.safetensors", refiner)
    assert inspect(path).family == "refiner"
    with pytest.raises(MaquetteError, match="SDXL refiner, which cannot be used as a base; use the SDXL base model"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "tensors, kind",
    [
        ({"first_stage_model.decoder.conv_in.weight": torch.zeros(2, 2)}, "vae"),
        ({"decoder.conv_in.weight": torch.zeros(2), "decoder.conv_out.weight": torch.zeros(2)}, "vae"),
        ({"controlnet_cond_embedding.conv_in.weight": torch.zeros(2)}, "controlnet"),
        ({"control_model.input_hint_block.0.weight": torch.zeros(2)}, "controlnet"),
        ({"emb_params": torch.zeros(3, 768)}, "embedding"),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, "embedding"),
        ({"<my-cat>": torch.zeros(768)}, "embedding"),
        ({"something.weight": torch.zeros(4, 4)}, "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_other_kinds(tmp_path: Path, tensors: dict, kind: str) -> None:
    path = write(tmp_path / "x.safetensors", tensors)
    assert inspect(path).kind == kind
    with pytest.raises(MaquetteError, match="not a whole Stable Diffusion model"):
        checkpoint.read(path)


def test_an_embedding_is_measured(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "x.safetensors", {"emb_params": torch.zeros(3, 768)}))
    assert found.embedding == {"vectors": 3, "width": 768} and found.family == "sd1"
    torch.save({"string_to_param": {"*": torch.zeros(2, 1024)}, "name": "cat", "step": 500}, tmp_path / "x.pt")
    found = inspect(tmp_path / "x.pt")
    assert found.embedding == {"vectors": 2, "width": 1024} and found.family == "sd2"
    assert found.metadata == {"name": "cat", "step": "500"}


def test_other_architectures_are_called_by_name(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "x.safetensors", {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}))
    assert found.sentence == "x.safetensors is a Flux model, which maquette does not open."


def lora(*names: str, width: int = 768) -> dict[str, torch.Tensor]:
    tensors = {}
    for index, name in enumerate(names):
        tensors[f"{name}.lora_down.weight"] = torch.ones(4 + 4 * index, width)
        tensors[f"{name}.lora_up.weight"] = torch.ones(8, 4 + 4 * index)
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    return tensors


KNOWN = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def test_a_lora_is_described_and_its_strange_modules_are_named(tmp_path: Path) -> None:
    adapter = adapters.from_state_dict(lora(KNOWN, "lora_unet_spam"), {"modelspec.trigger_phrase": "zkw, robot"}, "x")
    adapter.save(tmp_path / "x.safetensors")
    found = inspect(tmp_path / "x.safetensors")
    assert found.lora is not None
    assert (found.family, found.lora.method, found.lora.modules, found.lora.matched) == ("sd1", "lora", 2, 1)
    assert found.lora.ranks == {"4": 1, "8": 1} and found.lora.alphas == {"2": 2}
    assert found.lora.unmatched == ["lora_unet_spam"] and found.lora.trigger_words == ["zkw", "robot"]
    assert found.problems == ["1 of 2 modules are not layers of Stable Diffusion 1, for example lora_unet_spam."]
    assert found.sentence == "x.safetensors is a lora adapter for Stable Diffusion 1."


def test_a_false_hash_and_broken_numbers_are_reported(tmp_path: Path) -> None:
    tensors = lora(KNOWN)
    tensors[f"{KNOWN}.lora_up.weight"][0, 0] = float("nan")
    found = inspect(write(tmp_path / "x.safetensors", tensors, {"sshs_model_hash": "0" * 64}))
    assert found.problems == [
        f"1 tensors hold NaN or infinite numbers, for example {KNOWN}.lora_up.weight.",
        "sshs_model_hash in the metadata is not the hash of the file's tensors.",
    ]
    assert inspect(tmp_path / "x.safetensors", hashes=False).problems == []


def test_trigger_words_from_the_captions_tag_counts() -> None:
    counts = {"40_zkw": {"zkw robot": 14, "red background": 3}, "1_reg": {"robot": 2}}
    assert trigger_words({"ss_tag_frequency": json.dumps(counts)}) == ["zkw robot"]
    assert trigger_words({"ss_tag_frequency": "{broken"}) == [] and trigger_words({}) == []


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        ("{broken", "is not valid JSON"),
        ("[" * 5000 + "]" * 5000, "is nested too deep (100 levels at most)"),
        ('{"a": {"b": 1e999}}', "is not valid JSON: the number 1e999 is too large"),
    ],
)
def test_tags_that_cannot_be_read_are_told(tmp_path: Path, tags: str, fault: str) -> None:
    found = inspect(write(tmp_path / "x.safetensors", lora(KNOWN), {"ss_tag_frequency": tags}), hashes=False)
    assert found.lora is not None and found.lora.trigger_words == []
    (problem,) = found.problems
    assert (
        problem.startswith("The tags that it was trained with cannot be read: ss_tag_frequency ") and fault in problem
    )


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"nowhere\.safetensors does not exist"):
        inspect(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif"])
def test_a_picture_says_how_it_was_drawn_whatever_its_format(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    from maquette.formats.picture_files import write_picture

    text = "a cat, é\nSteps: 3, Sampler: Euler, Seed: 1"
    write_picture(Image.new("RGB", (16, 16)), tmp_path / f"a.{suffix}", text)
    result = run(InspectConfig.parse({"path": tmp_path / f"a.{suffix}"}))
    assert result.metadata == {"parameters": text} and "drawn with these parameters" in result.sentence
