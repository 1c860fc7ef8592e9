"""ControlNets of every family and layout: against diffusers' own reader, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from maquette.errors import MaquetteError
from maquette.families import controlnet
from maquette.families.unet import ControlNetModel
from maquette.formats import controlnet as layout
from maquette.formats import ldm, safetensors
from maquette.stages.inspect import InspectConfig, InspectResult
from maquette.stages.inspect import run as run_inspect

FAMILIES = ("sd1", "sd2", "sdxl")
Folders = dict[str, Path]


def network(family: str) -> Any:
    """A narrow random ControlNet in the family's architecture; its zero convolutions are not zero."""
    from diffusers import ControlNetModel

    options = tiny.unet_options(family, 4)
    for key in ("out_channels", "up_block_types", "sample_size"):
        options.pop(key, None)
    torch.manual_seed(1)
    made = ControlNetModel(**options, conditioning_embedding_out_channels=(4, 8, 12, 16))
    for parameter in made.requires_grad_(False).eval().parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("controlnets")
    for family in FAMILIES:
        network(family).save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


def ldm_file(folder: Path, path: Path, prefix: str = layout.PREFIX, **more: torch.Tensor) -> Path:
    tensors = safetensors.load(folder / "diffusion_pytorch_model.safetensors")
    safetensors.save({prefix + layout.to_ldm(name): tensor for name, tensor in tensors.items()} | more, path)
    return path


def outputs(model: Any, family: str) -> list[torch.Tensor]:
    """Of ours or of diffusers' class."""
    generator = torch.Generator().manual_seed(2)
    width = model.config.cross_attention_dim
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 77, width, generator=generator)
    hint = torch.rand(1, 3, 64, 64, generator=generator)
    pooled, sizes = torch.ones(1, 128), torch.tensor([[64, 64, 0, 0, 64, 64]])
    added: dict[str, Any] = {"pooled": pooled, "sizes": sizes}
    if not isinstance(model, ControlNetModel):
        added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}, "return_dict": False}
    with torch.no_grad():
        down, mid = model(x, torch.tensor([300]), text, hint, **added)
    return [*down, mid]


def agree(ours: Any, theirs: Any, family: str) -> None:
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    for a, b in zip(outputs(ours, family), outputs(theirs, family), strict=True):
        assert a.abs().max() > 1e-3
        # Mapped tensors begin at other bytes in another file, by which some processors' products round otherwise.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [layout.PREFIX, ""], ids=["prefixed", "bare"])
def test_ldm_files_equal_diffusers_own_reader(folders: Folders, tmp_path: Path, family: str, prefix: str) -> None:
    from diffusers import ControlNetModel

    path = ldm_file(folders[family], tmp_path / "c.safetensors", prefix)
    ours = controlnet.load(path)
    if family == "sdxl":  # diffusers' reader leaves the size embedding of an LDM file out and fails
        path = folders[family] / "diffusion_pytorch_model.safetensors"
    theirs = ControlNetModel.from_single_file(str(path), config=str(folders[family]), local_files_only=True)
    assert ours.family == family and not any(p.requires_grad for p in ours.module.parameters())
    agree(ours.module, theirs, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_and_files_with_diffusers_names(folders: Folders, family: str) -> None:
    expected = network(family)
    for path in (folders[family], folders[family] / "diffusion_pytorch_model.safetensors"):
        ours = controlnet.load(path)
        assert ours.family == family and ours.source == str(path)
        agree(ours.module, expected, family)


def test_a_pickled_file_with_the_base_model_beside_it_in_half_precision(folders: Folders, tmp_path: Path) -> None:
    """The first ControlNets were published so: a whole .pth of Stable Diffusion with the ControlNet inside."""
    tensors = safetensors.load(folders["sd1"] / "diffusion_pytorch_model.safetensors")
    content = {layout.PREFIX + layout.to_ldm(name): tensor for name, tensor in tensors.items()}
    content[f"{ldm.UNET}input_blocks.0.0.weight"] = torch.zeros(32, 4, 3, 3)
    torch.save({"state_dict": content}, tmp_path / "control.pth")
    ours = controlnet.load(tmp_path / "control.pth", dtype=torch.float16)
    assert {p.dtype for p in ours.module.parameters()} == {torch.float16}
    assert torch.equal(ours.module.state_dict()["conv_in.weight"], tensors["conv_in.weight"].half())


@pytest.mark.parametrize("family", FAMILIES)
def test_names_go_there_and_back(folders: Folders, family: str) -> None:
    names = safetensors.read_header(folders[family] / "diffusion_pytorch_model.safetensors").tensors
    assert len({layout.to_ldm(name) for name in names}) == len(names)
    assert [layout.from_ldm(layout.to_ldm(name)) for name in names] == list(names)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight"),
        ("controlnet_cond_embedding.blocks.5.bias", "input_hint_block.12.bias"),
        ("controlnet_cond_embedding.conv_out.weight", "input_hint_block.14.weight"),
        ("controlnet_down_blocks.11.weight", "zero_convs.11.0.weight"),
        ("controlnet_mid_block.bias", "middle_block_out.0.bias"),
        ("mid_block.resnets.1.conv1.weight", "middle_block.2.in_layers.2.weight"),
    ],
)
def test_single_names(ours: str, theirs: str) -> None:
    assert layout.to_ldm(ours) == theirs and layout.from_ldm(theirs) == ours


def inspect(path: Path) -> InspectResult:
    return run_inspect(InspectConfig(path=path))


def test_inspect_says_what_it_is(folders: Folders, tmp_path: Path) -> None:
    path = ldm_file(folders["sdxl"], tmp_path / "c.safetensors")
    assert inspect(path).sentence == "c.safetensors is a ControlNet for Stable Diffusion XL."
    found = inspect(folders["sd1"])
    assert (found.kind, found.family, found.layout) == ("controlnet", "sd1", "diffusers")
    assert found.parameters == sum(p.numel() for p in network("sd1").parameters())
    assert found.sentence == "sd1 is a ControlNet for Stable Diffusion 1."


def test_relatives_are_called_by_name(folders: Folders, tmp_path: Path) -> None:
    path = ldm_file(folders["sdxl"], tmp_path / "l.safetensors", "", lora_controlnet=torch.zeros(0))
    with pytest.raises(MaquetteError, match=r"l\.safetensors is a Control-LoRA, which maquette does not open"):
        controlnet.load(path)
    assert inspect(path).sentence.startswith("l.safetensors is a Control-LoRA, which maquette does not open")
    tensors = safetensors.load(folders["sdxl"] / "diffusion_pytorch_model.safetensors")
    safetensors.save(tensors | {"task_embedding": torch.zeros(6, 64)}, tmp_path / "u.safetensors")
    with pytest.raises(MaquetteError, match=r"u\.safetensors is a union ControlNet, which maquette does not open"):
        controlnet.load(tmp_path / "u.safetensors")


def test_other_files_and_broken_ones_are_refused(folders: Folders, tmp_path: Path) -> None:
    safetensors.save({"emb_params": torch.zeros(2, 768)}, tmp_path / "e.safetensors")
    with pytest.raises(MaquetteError, match=r"e\.safetensors is not a ControlNet; `maquette inspect` says what it is"):
        controlnet.load(tmp_path / "e.safetensors")
    with pytest.raises(MaquetteError, match="nowhere does not exist"):
        controlnet.load(tmp_path / "nowhere")
    tensors = safetensors.load(folders["sd1"] / "diffusion_pytorch_model.safetensors")
    tensors.pop("controlnet_mid_block.weight")
    safetensors.save(tensors, tmp_path / "half.safetensors")
    with pytest.raises(MaquetteError, match=r"lacks 1 tensors, e\.g\. controlnet_mid_block\.weight"):
        controlnet.load(tmp_path / "half.safetensors")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(MaquetteError, match="holds a UNet2DConditionModel, not a ControlNet"):
        controlnet.load(tmp_path / "unet")


def test_a_base_of_another_family_is_refused(folders: Folders) -> None:
    loaded = controlnet.load(folders["sd2"])
    loaded.require_family("sd2")
    with pytest.raises(MaquetteError, match="for Stable Diffusion 2, which does not fit a base of Stable Diffusion XL"):
        loaded.require_family("sdxl")
