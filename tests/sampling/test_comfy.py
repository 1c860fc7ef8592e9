"""ComfyUI workflows: every link leads to a node and a slot of the right type; what stands in them; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.sampling.comfy import workflow
from maquette.sampling.comfy_nodes import NODES, SAMPLERS, SCHEDULES
from maquette.sampling.comfy_parts import Facts, Workflow
from maquette.sampling.draw_settings import DrawSettings
from maquette.sampling.samplers import SAMPLERS as OWN

FACTS = Facts("models/sd15.safetensors", "sd1", 4, "epsilon", 7.0, (512, 768))
INPAINTING = Facts("inpaint.safetensors", "sd1", 9, "epsilon", 7.0, (512, 512))
XL = Facts("xl.safetensors", "sdxl", 4, "epsilon", 7.0, (1024, 1024), vae="vae/fixed.safetensors")
_WIDGETS = {"text": str, "number": (int, float), "choice": (str, bool)}


def made(facts: Facts = FACTS, **options: Any) -> Workflow:
    told = {"prompt": "a cat", "negative_prompt": "blurry", "seed": 5, **options}
    return workflow(DrawSettings.parse(told, "test"), facts)


def check(flow: Workflow) -> None:
    """As ComfyUI does before it runs one: known nodes, all inputs, links to earlier nodes' slots of their type."""
    for number, node in flow.nodes.items():
        takes = NODES[node["class_type"]].takes
        assert node["inputs"].keys() == takes.keys()
        for name, value in node["inputs"].items():
            if takes[name].isupper():
                source, slot = value
                assert int(source) < int(number) and NODES[flow.nodes[source]["class_type"]].gives[slot] == takes[name]
            else:
                assert isinstance(value, _WIDGETS[takes[name]]) and (takes[name] != "choice" or value != "")
    used = {value[0] for node in flow.nodes.values() for value in node["inputs"].values() if isinstance(value, list)}
    ends = [number for number in flow.nodes if number not in used]
    assert [flow.nodes[number]["class_type"] for number in ends] == ["SaveImage"]


def of(flow: Workflow, kind: str) -> list[dict[str, Any]]:
    return [node["inputs"] for node in flow.nodes.values() if node["class_type"] == kind]


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        safetensors.save({"lora_unet_x.alpha": torch.tensor(1.0)}, tmp_path / f"{name}.safetensors")
    return tmp_path


CASES: dict[str, tuple[Facts, dict[str, Any]]] = {
    "words": (FACTS, {}),
    "clip skip, vae, rescale": (XL, {"cfg_rescale": 0.5, "clip_skip": 2}),
    "image": (FACTS, {"init_image": "in/photo.png", "denoising_strength": 0.5}),
    "exact steps": (FACTS, {"init_image": "photo.png", "exact_steps": True}),
    "mask": (FACTS, {"init_image": "photo.png", "mask": "in/mask.png", "mask_invert": True}),
    "fill": (FACTS, {"init_image": "photo.png", "mask": "transparency", "masked_content": "fill"}),
    "inpainting model": (INPAINTING, {"init_image": "photo.png", "mask": "mask.png"}),
    "extend": (FACTS, {"init_image": "photo.png", "extend": ["left=64"]}),
    "hires": (FACTS, {"hires_scale": 2, "hires_prompt": "a dog", "denoising_strength": 0.5}),
    "hires by pixels": (FACTS, {"hires_scale": 2, "hires_upscaler": "Lanczos", "hires_base": "other.safetensors"}),
    "controls": (FACTS, {"controls": ["c.pth,image=a.png,preprocessor=canny", "d.pth,image=b.png,end=0.5"]}),
    "refiner": (XL, {"refiner": "refiner.safetensors", "refiner_switch_at": 0.75}),
    "tiles": (FACTS, {"tiled_vae": True}),
    "everything": (
        FACTS,
        {"init_image": "photo.png", "mask": "mask.png", "controls": ["c.pth,preprocessor=invert"], "clip_skip": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_link_fits(case: str) -> None:
    facts, options = CASES[case]
    check(made(facts, **options))


def test_the_values_of_a_drawing_from_words(loras: Path) -> None:
    flow = made(
        prompt="a ((red)) cat, \\(x\\) <lora:one:0.8> <lora:two:te=0.5:unet=1.2>", lora_dir=loras,
        sampler="DPM++ 2M Karras", steps=30, cfg_scale=7.0,
    )  # fmt: skip
    check(flow)
    assert of(flow, "CheckpointLoaderSimple") == [{"ckpt_name": "sd15.safetensors"}]
    assert [(n["lora_name"], n["strength_model"], n["strength_clip"]) for n in of(flow, "LoraLoader")] == [
        ("one.safetensors", 0.8, 0.8), ("two.safetensors", 1.2, 0.5),
    ]  # fmt: skip
    assert [n["text"] for n in of(flow, "CLIPTextEncode")] == ["a (red:1.21) cat, \\(x\\)  ", "blurry"]
    assert of(flow, "EmptyLatentImage") == [{"width": 512, "height": 768, "batch_size": 1}]
    sampler = of(flow, "KSamplerAdvanced")[0]
    wanted = {"noise_seed": 5, "steps": 30, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    assert wanted.items() <= sampler.items()
    assert flow.notes == [
        "ComfyUI weighs words against an empty prompt: what stands in brackets counts a little otherwise."
    ]


def test_steps_of_a_drawing_from_a_picture() -> None:
    """A1111 does floor(strength x steps) + 1 of its steps."""
    flow = made(init_image="p.png", denoising_strength=0.5, steps=20, sampler="Euler")
    assert of(flow, "KSamplerAdvanced")[0]["start_at_step"] == 9
    exact = of(
        made(init_image="p.png", denoising_strength=0.5, steps=20, sampler="Euler", exact_steps=True), "KSampler"
    )
    assert (exact[0]["steps"], exact[0]["denoise"]) == (20, 0.5)


def test_hires_fix_and_the_refiner() -> None:
    flow = made(
        hires_scale=2, hires_steps=12, denoising_strength=0.4, hires_sampler="Euler", hires_upscaler="Latent (bicubic)"
    )
    assert (
        of(flow, "LatentUpscale")[0]["upscale_method"] == "bicubic" and of(flow, "LatentUpscale")[0]["height"] == 1536
    )
    again = of(flow, "KSampler")[0]
    assert (again["steps"], again["denoise"], again["sampler_name"]) == (12, 0.4, "euler")
    first, second = of(made(XL, refiner="r.safetensors", steps=20), "KSamplerAdvanced")
    assert (first["end_at_step"], first["return_with_leftover_noise"]) == (16, "enable")
    assert (second["start_at_step"], second["add_noise"]) == (16, "disable")
    assert [n["ascore"] for n in of(made(XL, refiner="r.safetensors"), "CLIPTextEncodeSDXLRefiner")] == [6.0, 2.5]


def test_embeddings_and_names() -> None:
    flow = made(
        Facts("a.ckpt", "sd1", 4, "epsilon", 7.0, (64, 64), ("bad-hands", "zkw")), prompt="zkw, a bad-hands zkws"
    )
    assert of(flow, "CLIPTextEncode")[0]["text"] == "embedding:zkw, a embedding:bad-hands zkws"


def test_names_of_samplers_and_schedules() -> None:
    assert SAMPLERS.keys() <= OWN.keys() and OWN.keys() - SAMPLERS.keys() == {"DDIM CFG++", "PLMS", "Restart"}
    assert of(made(sampler="Euler", schedule_type="Beta"), "KSamplerAdvanced")[0]["scheduler"] == "beta"
    assert of(made(sampler="DDIM"), "KSamplerAdvanced")[0]["scheduler"] == "ddim_uniform"
    assert set(SCHEDULES.values()) == {
        "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "kl_optimal",
    }  # fmt: skip


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"sampler": "Restart"}, "ComfyUI has no sampler Restart; these it has: Euler,"),
        ({"sampler": "Euler", "schedule_type": "Align Your Steps"}, "KSampler has no schedule Align Your Steps"),
        ({"prompt": "a cat AND a dog"}, "ComfyUI has no AND between prompts"),
        ({"prompt": "a [cat:dog:0.5]"}, r"no \[from:to:when\] in prompts"),
        ({"variation_strength": 0.5}, "no variation seed"),
        ({"init_image": "a.png", "mask": "b.png", "only_masked": True}, "cannot draw the masked part alone"),
        ({"init_image": "a.png", "mask": "b.png", "extend": ["left=8"]}, "a mask or extend the picture, not both"),
        ({"hires_width": 1024, "hires_height": 1024}, "do not cut as hires fix does"),
        ({"controls": ["c.pth"]}, "The ControlNet c.pth has no picture"),
    ],
)
def test_what_comfyui_cannot_draw(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MaquetteError, match=sentence):
        made(**options)
    with pytest.raises(MaquetteError, match="ComfyUI cannot open pocket"):
        made(Facts("pocket", "pocket", 4, "v_prediction", 4.0, (64, 64)))


@pytest.mark.parametrize(
    "options, note",
    [
        ({"sampler": "Euler a"}, "Euler a adds noise of its own at each step"),
        ({"sampler": "LCM"}, "LCM adds noise of its own at each step"),
        ({"sampler": "DDIM"}, "ComfyUI's DDIM steps through timesteps of its own"),
        ({"sampler": "UniPC"}, "ComfyUI's UniPC steps through timesteps of its own"),
        ({"sampler": "DPM++ 3M SDE"}, "ComfyUI's DPM++ 3M SDE keeps the level before the last"),
        ({"noise_source": "NV"}, "choose the noise source CPU"),
        ({"batch_size": 2}, "makes the first picture; raise its seed"),
        ({"prompt": "a cat BREAK a dog"}, "BREAK has no equal"),
        ({"controls": ["c.pth,image=a.png,preprocessor=tile"]}, "no preprocessor tile: give c.pth what it makes"),
        ({"controls": ["c.pth,image=a.png,mode=prompt"]}, "no control mode: c.pth is balanced"),
        ({"init_image": "a.png", "resize_mode": "fill"}, "no resize mode fill"),
        ({"init_image": "a.png", "mask": "b.png"}, "do not blur a mask"),
        ({"init_image": "a.png", "mask": "b.png", "masked_content": "fill"}, "grey, not with 'fill'"),
        ({"hires_scale": 2, "hires_upscaler": "Latent (antialiased)"}, "LatentUpscale does not antialias"),
    ],
)
def test_notes_on_what_differs(options: dict[str, Any], note: str) -> None:
    assert any(note in each for each in made(**options).notes)
    assert made(sampler="Euler").notes == made(sampler="DPM++ 2M SDE").notes == made(sampler="DPM++ SDE").notes == []


def test_loras_in_part(loras: Path) -> None:
    flow = made(prompt="a <lora:one:1:lbw=OUTALL:start=0.3>", lora_dir=loras, sampler="Euler")
    assert flow.notes == [
        "LoraLoader applies one.safetensors whole and at every step: lbw, dyn, start and stop are left out."
    ]


@pytest.mark.parametrize("case", ["mask", "fill", "inpainting model", "extend"])
def test_what_is_kept_of_a_picture_is_put_back(case: str) -> None:
    """ComfyUI's decoder draws all of it anew."""
    facts, options = CASES[case]
    flow = made(facts, **options)
    (put,) = of(flow, "ImageCompositeMasked")
    kinds = [flow.nodes[put[name][0]]["class_type"] for name in ("destination", "source", "mask")]
    first = "ImagePadForOutpaint" if case == "extend" else "ImageScale"
    masks = {"mask": "InvertMask", "fill": "LoadImage", "inpainting model": "LoadImageMask", "extend": first}
    assert kinds == [first, "VAEDecode", masks[case]]
    assert not of(made(init_image="photo.png"), "ImageCompositeMasked")


def test_a_schedule_that_is_another_in_comfyui_is_told() -> None:
    beta = "ComfyUI's Beta schedule spaces timesteps, A1111's spaces levels: the steps are others."
    assert beta in made(sampler="Euler", schedule_type="Beta").notes
    assert beta not in made(sampler="Euler", hires_scale=2).notes
    assert beta in made(sampler="Euler", hires_scale=2, hires_sampler="Euler", hires_schedule_type="Beta").notes
