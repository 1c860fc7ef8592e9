"""Settings -> the text in a picture -> settings: ours for all settings, and texts as A1111 writes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.formats.png import format_infotext
from maquette.sampling.control_unit import ControlUnit
from maquette.sampling.draw_settings import DrawSettings
from maquette.sampling.infotext import for_picture, unit_text, values_of
from maquette.sampling.recipe import read_recipe
from maquette.sampling.words import Words

BASE: Any = SimpleNamespace(
    spec=SimpleNamespace(name="sd1"),
    content_hash="6ce0161689b3",
    source="v1-5.safetensors",
    vae_hash="",
    vae_source="",
    told_prediction="",
)
SHARE = st.floats(0.001, 0.999)
TEXT = st.text("ab(){}[]<>:,\"'#é \\=", min_size=1, max_size=20).map(lambda text: f"a {text} b")
COMMON: dict[str, Any] = {
    "prompt": TEXT,
    "negative_prompt": TEXT,
    "steps": st.integers(1, 150),
    "sampler": st.sampled_from(["Euler a", "DDIM", "DPM++ 2M SDE", "Euler", "DPM2", "UniPC"]),
    "cfg_scale": SHARE.map(lambda n: 1 + 10 * n),
    "cfg_rescale": st.sampled_from([0.0, 0.7]),
    "seed": st.integers(0, 2**32),
    "width": st.integers(8, 64).map(lambda n: 8 * n),
    "height": st.integers(8, 64).map(lambda n: 8 * n),
    "clip_skip": st.integers(1, 3),
    "noise_source": st.sampled_from(["CPU", "NV", "GPU"]),
}
VARIED = {"variation_seed": st.integers(0, 2**32), "variation_strength": SHARE, "seed_resize_from": st.just("512x640")}
HIRES = {
    "hires_scale": SHARE.map(lambda n: 1 + n),
    "hires_steps": st.integers(1, 50),
    "denoising_strength": SHARE,
    "hires_upscaler": st.sampled_from(["Latent", "Latent (nearest-exact)", "Lanczos"]),
    "hires_prompt": TEXT,
    "hires_negative_prompt": TEXT,
    "hires_cfg_scale": SHARE.map(lambda n: 1 + n),
}
IMAGE = {
    "init_image": st.just("photo.png"),
    "denoising_strength": SHARE,
    "exact_steps": st.booleans(),
    "resize_mode": st.sampled_from(["just", "crop", "fill", "latent"]),
    "mask": st.just("transparency"),
    "mask_blur": st.integers(0, 20).map(float),
    "mask_invert": st.booleans(),
    "masked_content": st.sampled_from(["fill", "original", "latent noise", "latent nothing"]),
    "only_masked": st.booleans(),
    "extend": st.sampled_from([[], ["left=64"], ["left=64", "top=8"]]),
}
CHURNED = {
    "sampler": st.sampled_from(["Euler", "Heun", "DPM2"]),
    "s_churn": SHARE,
    "s_tmin": SHARE,
    "s_tmax": SHARE.map(lambda n: 1 + n),
    "s_noise": SHARE,
    "discard_penultimate_sigma": st.booleans(),
    "prompt_editing": st.sampled_from(["A1111", "exact"]),
    "tiled_vae": st.booleans(),
}
ANCESTRAL = {
    "sampler": st.sampled_from(["Euler a", "DPM++ 2S a"]),
    "schedule_type": st.sampled_from(["Automatic", "Beta", "KL Optimal"]),
    "eta": SHARE,
    "ensd": st.integers(1, 2**40),
    "emphasis": st.sampled_from(["No norm", "Ignore", "None"]),
    "prompt": TEXT.map(lambda text: f"(a) {text}"),
}


def text_of(told: DrawSettings) -> str:
    words = Words(told.prompt, told.prompt, told.negative_prompt, {}, [], [], [])
    values = values_of(told, BASE, [words], (told.width or 0, told.height or 0), None)
    return format_infotext(told.prompt, told.negative_prompt, for_picture(values, told.seed, told.variation_seed))


@settings(max_examples=150, deadline=None)
@given(
    st.one_of([st.fixed_dictionaries({**COMMON, **more}) for more in ({}, VARIED, HIRES, IMAGE, CHURNED, ANCESTRAL)])
)
def test_written_and_read_again(values: dict[str, Any]) -> None:
    told = DrawSettings.parse(values)
    recipe = read_recipe(text_of(told))
    assert recipe.unknown == [] and (recipe.model, recipe.model_hash) == ("v1-5", "6ce0161689")
    files = {"init_image": told.init_image} if told.init_image else {}
    again = DrawSettings.parse({**recipe.settings, **files})
    assert text_of(again) == text_of(told)
    only = {"mask_padding"} if not told.only_masked else set()
    named = {"sampler", "schedule_type"}  # "DDIM" and "DDIM Automatic" are one
    discards = "Discard penultimate sigma" in text_of(told)  # not said of samplers that do so anyhow
    named |= set() if discards else {"discard_penultimate_sigma"}
    left_out = only | named | ({"variation_seed"} if not told.variation_strength else set())
    assert again.model_dump(exclude=left_out) == told.model_dump(exclude=left_out)


@pytest.mark.parametrize("mode", ["balanced", "prompt", "control"])
@pytest.mark.parametrize("resize", ["just", "crop", "fill"])
def test_controlnets_written_and_read_again(mode: str, resize: str) -> None:
    unit = ControlUnit.parse(
        {"model": "canny", "preprocessor": "canny", "weight": 0.75, "start": 0.1, "end": 0.9, "mode": mode,
         "resize": resize, "a": 50, "b": 150}
    )  # fmt: skip
    values = {"Steps": 1, "Sampler": "Euler", "Seed": 1, "ControlNet 0": unit_text(unit)}
    recipe = read_recipe(format_infotext("a", "", values))
    assert [ControlUnit.parse(each) for each in recipe.controls] == [unit]


def test_a_text_of_a1111() -> None:
    recipe = read_recipe(
        "a <lora:mine:0.8> cat\nNegative prompt: ugly\nSteps: 25, Sampler: DPM++ 2M SDE, Schedule type: Karras, "
        "CFG scale: 6.5, Seed: 42, Size: 640x512, Model hash: 6ce0161689, Model: v1-5-pruned, VAE hash: 735e4c3a44, "
        "VAE: kl-f8.safetensors, Variation seed: 7, Variation seed strength: 0.2, Seed resize from: 0x0, "
        "Denoising strength: 0.55, Clip skip: 2, Hires resize: 1280x0, Hires steps: 12, Hires upscaler: Latent, "
        'Lora hashes: "mine: 1a2b3c4d5e6f, other: aabbccddeeff", Version: v1.10.1'
    )
    told = recipe.settings
    assert (told["sampler"], told["schedule_type"], told["steps"], told["cfg_scale"]) == (
        "DPM++ 2M SDE",
        "Karras",
        25,
        6.5,
    )
    assert (told["width"], told["height"], told["seed"], told["clip_skip"]) == (640, 512, 42, 2)
    assert told["noise_source"] == "NV"  # of a graphics card
    assert (told["variation_seed"], told["variation_strength"]) == (7, 0.2) and "seed_resize_from" not in told
    assert (told["hires_width"], told["hires_height"], told["hires_steps"]) == (1280, None, 12)
    assert (recipe.model, recipe.model_hash, recipe.vae) == ("v1-5-pruned", "6ce0161689", "kl-f8.safetensors")
    assert recipe.lora_hashes == {"mine": "1a2b3c4d5e6f", "other": "aabbccddeeff"}
    assert not recipe.begun and DrawSettings.parse(told).hires


def test_older_texts_of_a1111() -> None:
    old = "a cat\nSteps: 20, Sampler: {}, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.6.0"
    assert DrawSettings.parse(read_recipe(old.format("DPM++ 2M Karras")).settings).sampler == "DPM++ 2M Karras"
    assert DrawSettings.parse(read_recipe(old.format("DPM++ 2M")).settings).sampler == "DPM++ 2M Uniform"
    assert DrawSettings.parse(read_recipe(old.format("DDIM")).settings).sampler == "DDIM"
    painted = read_recipe(
        "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.6, "
        'Mask blur: 4, Inpaint area: Only masked, Masked area padding: 16, ControlNet 0: "preprocessor: canny, model: '
        "control_v11p_sd15_canny [d14c016b], weight: 0.8, starting/ending: (0.1, 0.9), resize mode: Resize and Fill, "
        'pixel perfect: False, control mode: My prompt is more important, preprocessor params: (512, 100, 200)"'
    )
    assert painted.begun and painted.masked
    assert (painted.settings["only_masked"], painted.settings["mask_padding"]) == (True, 16)
    assert painted.controls == [
        {"model": "control_v11p_sd15_canny", "preprocessor": "canny", "weight": 0.8, "start": 0.1, "end": 0.9,
         "mode": "prompt", "resize": "fill"}
    ]  # fmt: skip
    assert read_recipe("a\nSteps: many, Sampler: Euler, Seed: 1").unknown == ["Steps: many"]


def test_what_a1111_calls_the_same_is_left_out() -> None:
    """Some versions write what stands in the boxes of their page."""
    written = "Hires sampler: Use same sampler, Hires checkpoint: Use same checkpoint"
    recipe = read_recipe(f"a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512, Hires upscale: 2, {written}")
    assert recipe.hires_model is None and recipe.settings["hires_scale"] == 2
    assert "hires_sampler" not in recipe.settings


def test_what_other_programs_draw_with_is_told() -> None:
    steps = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
    found = read_recipe(f"{steps}, Face restoration: CodeFormer, Tiling: True, Dynamic thresholding enabled: False")
    assert found.absent == ["Face restoration: CodeFormer", "Tiling: True"]
    assert read_recipe(f"{steps}, Version: v1.10.1").absent == []
