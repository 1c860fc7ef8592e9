"""The client `webuiapi` against a server that draws with the real pocket base, and against the studio's own doors."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw

from maquette import families
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
from tests.families import tiny
from tests.sampling.random_loras import write_lora
from tests.studio.serving import app_of, served

webuiapi = pytest.importorskip("webuiapi")
ROBOT = {"prompt": "a photo of a red robot", "seed": 3, "steps": 3, "width": 64, "height": 64, "cfg_scale": 4}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawingEngine]:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "loras").mkdir()
    write_lora(families.load("pocket"), folder / "loras" / "robot.safetensors")
    tiny.write_folder(folder / "bases" / "second", "sd1")
    made = DrawingEngine(Library([folder / "bases"], [folder / "loras"]), folder / "data", fake=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def api(engine: DrawingEngine) -> Iterator[Any]:
    with served(app_of(engine)) as port:
        yield webuiapi.WebUIApi(port=port, sampler="Euler a", steps=3)


def differ(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getbbox() is not None


@pytest.mark.heavy
def test_txt2img_and_png_info(api: Any) -> None:
    result = api.txt2img(**ROBOT, n_iter=2)
    assert [image.size for image in result.images] == [(64, 64)] * 2 and differ(*result.images)
    assert result.info["all_seeds"] == [3, 4] and result.info["sampler_name"] == "Euler a"
    assert result.info["warnings"] == []
    told = api.png_info(result.image)
    assert told.info == result.info["infotexts"][0]
    again = told.info.split("\n")[0]
    assert again == ROBOT["prompt"]
    assert not differ(api.txt2img(**{**ROBOT, "prompt": again}).image, result.image)


@pytest.mark.heavy
def test_img2img_with_a_mask_changes_what_is_white(api: Any) -> None:
    begun = api.txt2img(**ROBOT).image
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((40, 0, 63, 63), fill=255)
    body = {**ROBOT, "prompt": "a photo of a blue car", "images": [begun], "denoising_strength": 1.0, "steps": 4}
    whole = api.img2img(**body).image
    part = api.img2img(**body, mask_image=mask, mask_blur=0, inpainting_fill=1, inpaint_full_res=False).image
    left, right = (0, 0, 32, 64), (44, 0, 64, 64)
    assert differ(whole.crop(left), begun.crop(left))
    assert differ(part.crop(right), begun.crop(right))
    assert not differ(part.crop(left), begun.crop(left))


@pytest.mark.heavy
def test_loras(api: Any) -> None:
    assert [lora["name"] for lora in api.get_loras()] == ["robot"]
    plain = api.txt2img(**ROBOT).image
    weighed = api.txt2img(**{**ROBOT, "prompt": f"{ROBOT['prompt']} <lora:robot:1>"})
    assert differ(weighed.image, plain) and "Lora hashes: " in weighed.info["infotexts"][0]
    assert not differ(api.txt2img(**{**ROBOT, "prompt": f"{ROBOT['prompt']} <lora:robot:0>"}).image, plain)
    unknown = api.txt2img(**{**ROBOT, "prompt": f"{ROBOT['prompt']} <lora:robbot:1>"})
    assert not differ(unknown.image, plain)
    assert unknown.info["warnings"] == [
        "There is no LoRA 'robbot'; there are robot. Did you mean robot? Drawn without it."
    ]


@pytest.mark.heavy
def test_models(api: Any) -> None:
    api.txt2img(**ROBOT)
    first = api.util_get_current_model()
    assert first.startswith("pocket [")
    names = api.util_get_model_names()
    assert len(names) == 2 and first in names
    api.util_set_model("second")
    assert api.util_get_current_model().startswith("second")
    assert api.txt2img(**ROBOT).info["sd_model_name"] == "second"
    api.util_set_model("pocket", find_closest=True)
    assert api.util_get_current_model() == first
    api.util_wait_for_ready(check_interval=0.1)


@pytest.mark.heavy
def test_interrupt_and_progress(api: Any, engine: DrawingEngine) -> None:
    seen: list[float] = [api.get_progress()["progress"]]
    halfway = threading.Event()
    show = engine._show

    def watched(on_progress: Any, progress: Any) -> None:
        show(on_progress, progress)
        if progress.step in (5, 20, 60):
            seen.append(api.get_progress()["progress"])
        if progress.step == 60:
            halfway.set()

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(api.txt2img(**{**ROBOT, "steps": 150, "n_iter": 2})))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_show", watched)
        thread.start()
        assert halfway.wait(60)
        api.interrupt()
        thread.join(60)
    assert seen[0] == 0 and seen == sorted(seen) and len(set(seen)) == 4
    assert results[0].info["interrupted"] and len(results[0].images) == 1
    assert api.get_progress()["state"]["job_count"] == 0


@pytest.mark.heavy
def test_controlnet(api: Any) -> None:
    assert api.controlnet_model_list() == ["pocket-canny"] and "canny" in api.controlnet_module_list()
    shown = Image.new("RGB", (64, 64))
    ImageDraw.Draw(shown).ellipse((12, 12, 52, 52), fill="white")
    unit = webuiapi.ControlNetUnit(image=shown, module="canny", model="pocket-canny", threshold_a=100, threshold_b=200)
    guided = api.txt2img(**ROBOT, controlnet_units=[unit])
    assert differ(guided.image, api.txt2img(**ROBOT).image)
    assert "ControlNet 0: " in guided.info["infotexts"][0]


@pytest.mark.heavy
def test_the_rest_that_the_client_knows(api: Any) -> None:
    assert api.has_controlnet and not api.has_adetailer
    assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
    assert api.get_upscalers() and api.get_latent_upscale_modes() and api.get_memory()["ram"]
    assert api.get_sd_vae() == api.get_prompt_styles() == api.get_face_restorers() == api.get_hypernetworks() == []
    assert api.refresh_checkpoints() is None and api.get_embeddings()["loaded"] == {}
    small = Image.new("RGB", (16, 16), "red")
    assert api.extra_single_image(small, upscaler_1="Lanczos", upscaling_resize=2).image.size == (32, 32)
    assert [im.size for im in api.extra_batch_images([small] * 2, upscaling_resize=2).images] == [(32, 32)] * 2


def test_authentication_on_and_off(serve: Callable[..., Any], tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], dict[str, str], bool]] = [
        ({}, {}, False),
        ({"api": True}, {}, True),
        ({"api": True}, {"username": "", "password": ""}, True),
        ({"password": "open sesame"}, {}, False),
        ({"password": "open sesame"}, {"username": "me", "password": "wrong words"}, False),
        ({"password": "open sesame"}, {"username": "me", "password": "open sesame"}, True),
    ]
    for number, (settings, credentials, allowed) in enumerate(cases):
        running = serve(data=tmp_path / str(number), **settings)
        client = webuiapi.WebUIApi(port=running.served.port, **credentials)
        if allowed:
            assert client.txt2img(**ROBOT).image.size == (64, 64)
        else:
            with pytest.raises(RuntimeError, match="401"):
                client.txt2img(**ROBOT)


@pytest.mark.heavy
def test_while_a_job_trains_there_is_a_sentence_and_progress_is_0(serve: Callable[..., Any]) -> None:
    running = serve(api=True)
    job = running.train(running.project(photos=4))
    running.wait(job, "running", step=1)
    client = webuiapi.WebUIApi(port=running.served.port)
    with pytest.raises(RuntimeError, match=r"503.*has the machine: pause it to draw\."):
        client.txt2img(**ROBOT)
    assert client.get_progress()["progress"] == 0 and client.get_progress()["state"]["job_count"] == 0
    assert running.job(job)["state"] == "running"
    assert running.client.post(f"/api/jobs/{job}/pause").status_code == 200
    running.wait(job, "paused")
    assert client.txt2img(**ROBOT).image.size == (64, 64)
    assert running.client.post(f"/api/jobs/{job}/resume").status_code == 200
    running.wait(job, "finished")
