"""A1111's interface, with a drawing process that needs no torch."""

import base64
import json
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, PngImagePlugin

from maquette.formats.png import parse_infotext
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
from tests.studio.serving import RED, app_of, b64, drawn, lora_file, picture_of


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DrawingEngine]:
    lora_file(tmp_path / "loras" / "anna.safetensors", ss_output_name="Anna")
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "Mine.ckpt").write_bytes(b"x")
    made = DrawingEngine(Library([tmp_path / "bases"], [tmp_path / "loras"]), tmp_path / "data", fake=True)
    yield made
    made.close()


@pytest.fixture
def client(engine: DrawingEngine) -> TestClient:
    return TestClient(app_of(engine), raise_server_exceptions=True)


def test_txt2img_answers_as_a1111(client: TestClient) -> None:
    answer = drawn(client, batch_size=2, n_iter=2, sampler_name="DPM++ 2M Karras", cfg_scale=5, width=96, height=64)
    info = answer["info"]
    assert info["all_seeds"] == [1, 2, 3, 4] and info["seed"] == 1
    assert (info["sampler_name"], info["extra_generation_params"]) == ("DPM++ 2M", {"Schedule type": "Karras"})
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (96, 64, 2, 5)
    assert info["sd_model_name"] == "pocket" and len(info["sd_model_hash"]) == 10
    assert [picture_of(text).info["parameters"] for text in answer["images"]] == info["infotexts"]
    assert answer["parameters"]["prompt"] == "a cat" and answer["parameters"]["n_iter"] == 2
    assert not answer["images"][0].startswith("data:")


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"sampler_name": "Magic"}, 404, "Sampler not found"),
        ({"scheduler": "Magic"}, 404, "Scheduler not found"),
        ({"steps": 151}, 422, "steps: Input should be less than or equal to 150."),
        ({"steps": "many"}, 422, "steps: Input should be a valid integer"),
        ({"width": 4096}, 422, "width: Input should be less than or equal to 2048."),
        ({"width": 65}, 422, "width: Input should be a multiple of 8."),
        ({"batch_size": 5, "n_iter": 4}, 422, "batch_size x n_iter is more than 16."),
        ({"script_name": "x/y/z plot"}, 422, "Script 'x/y/z plot' not found: maquette runs no scripts."),
        ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, 422, "Always on script 'ADetailer' is not served"),
        (
            {"override_settings": {"sd_model_checkpoint": "gone"}},
            404,
            "There is no model 'gone'; there are pocket, Mine.",
        ),
        ({"enable_hr": True, "hr_upscaler": "R-ESRGAN"}, 404, "Upscaler not found; there are Latent, "),
        ({"enable_hr": True, "hr_resize_x": 7}, 422, "hr_resize_x and hr_resize_y are 0 or 16 and more."),
        ({"prompt": "fake memory"}, 500, "Memory ran out while drawing."),
    ],
)
def test_errors_have_a1111s_form(client: TestClient, body: dict[str, Any], status: int, detail: str) -> None:
    response = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "steps": 2, **body})
    assert response.status_code == status
    assert response.json().keys() == {"error", "detail", "body", "errors"}
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"prompt": 1e999}', b'{"cfg_scale": NaN}', b'{"prompt": "\\ud800"}']
)
def test_damaged_bodies_are_422(client: TestClient, body: bytes) -> None:
    response = client.post("/sdapi/v1/txt2img", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422 and response.json()["error"] == "ValidationError"


def test_an_unknown_lora_is_a_warning_in_info(client: TestClient) -> None:
    info = drawn(client, prompt="a cat <lora:bob:1>", tiling=True, refiner_checkpoint="xl", restore_faces=False)["info"]
    assert info["warnings"] == [
        "tiling is not served and left out.",
        "refiner_checkpoint is not served and left out.",
        "There is no LoRA 'bob'; there are Anna, anna. Drawn without it.",
    ]


def test_options_of_one_drawing_stay_where_that_is_asked(client: TestClient) -> None:
    wanted = {"CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": "31337", "randn_source": "NV"}

    def options() -> dict[str, Any]:
        told = client.get("/sdapi/v1/options").json()
        return {key: told[key] for key in wanted}

    usual = options()
    drawn(client, prompt="a cat", override_settings=wanted)
    assert options() == usual
    drawn(client, prompt="a cat", override_settings=wanted, override_settings_restore_afterwards=False)
    assert options() == {**wanted, "eta_noise_seed_delta": 31337}


def test_what_is_switched_off_is_not_sent(client: TestClient, engine: DrawingEngine) -> None:
    assert drawn(client, send_images=False, save_images=True)["images"] == []
    kept = list((engine.folder / "pictures").glob("*.png"))
    assert [path.name[15:] for path in kept] == ["-1.png"]
    assert Image.open(kept[0]).info["parameters"].startswith("a cat\n")


def test_another_model_for_once_or_for_good(client: TestClient, engine: DrawingEngine) -> None:
    override = {"sd_model_checkpoint": "Mine.ckpt", "CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"}
    once = drawn(client, override_settings=override)["info"]
    assert (once["sd_model_name"], once["clip_skip"]) == ("Mine", 2) and engine.model.name == "pocket"
    drawn(client, override_settings=override, override_settings_restore_afterwards=False)
    assert engine.model.name == "Mine"


def test_options_name_the_model_and_change_it(client: TestClient) -> None:
    before = client.get("/sdapi/v1/options").json()
    assert before["sd_model_checkpoint"] == "pocket" and before["CLIP_stop_at_last_layers"] == 1
    # As Open WebUI does: all of it goes back with one key changed.
    answer = client.post("/sdapi/v1/options", json={**before, "sd_model_checkpoint": "Mine.ckpt", "other": [1]})
    assert (answer.status_code, answer.json()) == (200, None)
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "Mine.ckpt"
    info = drawn(client)["info"]
    title = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    assert title == f"Mine.ckpt [{info['sd_model_hash']}]"
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": title}).status_code == 200
    gone = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "gone", "CLIP_stop_at_last_layers": 5})
    assert gone.status_code == 404 and gone.json()["detail"].startswith("There is no model 'gone'")
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": "x"}).status_code == 422


def test_lists_have_the_keys_that_clients_read(client: TestClient, tmp_path: Path) -> None:
    def get(path: str) -> Any:
        response = client.get(f"/sdapi/v1/{path}")
        assert response.status_code == 200
        return response.json()

    assert [model["model_name"] for model in get("sd-models")] == ["pocket", "Mine"]
    assert get("sd-models")[1] == {
        "title": "Mine.ckpt",
        "model_name": "Mine",
        "hash": None,
        "sha256": None,
        "filename": str(tmp_path / "bases" / "Mine.ckpt"),
        "config": None,
    }
    path = str(tmp_path / "loras" / "anna.safetensors")
    assert get("loras") == [{"name": "anna", "alias": "Anna", "path": path, "metadata": {"ss_output_name": "Anna"}}]
    assert {"name", "aliases", "options"} == get("samplers")[0].keys()
    assert {"name": "karras", "label": "Karras", "aliases": None, "default_rho": 7.0, "need_inner_model": False} in get(
        "schedulers"
    )
    assert {"name", "model_name", "model_path", "model_url", "scale"} == get("upscalers")[0].keys()
    assert get("embeddings") == {"loaded": {}, "skipped": {}} and get("sd-vae") == []
    for name in ("hypernetworks", "prompt-styles", "face-restorers", "realesrgan-models", "script-info", "extensions"):
        assert get(name) == []
    assert "controlnet" in get("scripts")["txt2img"]
    assert {"ram", "cuda"} == get("memory").keys() and get("cmd-flags")
    assert client.get("/internal/ping").json() == {}
    for name in ("refresh-checkpoints", "refresh-loras", "refresh-vae"):
        assert client.post(f"/sdapi/v1/{name}").json() is None
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}


def test_the_names_are_those_of_sampling() -> None:
    from maquette.sampling.enlarging import LATENT, PIXELS
    from maquette.sampling.pictures.preprocessors import PREPROCESSORS
    from maquette.sampling.samplers import SAMPLERS
    from maquette.sampling.schedules import SCHEDULES
    from maquette.studio.sdapi import control, names

    assert list(names.SAMPLERS) == list(SAMPLERS)
    assert list(names.SCHEDULES) == ["Automatic", *SCHEDULES]
    assert tuple(LATENT) == names.LATENT_UPSCALERS and names.UPSCALERS[1:] == PIXELS
    assert set(control.MODULES.values()) == set(PREPROCESSORS)


@pytest.mark.parametrize(
    ("sampler", "schedule", "found"),
    [
        ("Euler a", "", ("Euler a", "Automatic")),
        ("euler a", "automatic", ("Euler a", "Automatic")),
        ("k_dpmpp_2m", "karras", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Heun Karras", "", ("DPM++ 2M SDE Heun", "Karras")),
        ("DPM++ 2M Karras", "Exponential", ("DPM++ 2M", "Exponential")),
        ("k_dpmpp_2m_ka", "", ("DPM++ 2M", "Karras")),
        ("DPM++ SDE", "SGM Uniform", ("DPM++ SDE", "SGM Uniform")),
        ("DPM++ SDE", "sgm_uniform", ("DPM++ SDE", "SGM Uniform")),
    ],
)
def test_samplers_by_all_their_names(sampler: str, schedule: str, found: tuple[str, str]) -> None:
    from maquette.sampling.samplers import find_sampler
    from maquette.studio.sdapi.names import sampler_and_schedule

    assert sampler_and_schedule(sampler, schedule) == found
    assert find_sampler(*found)


def test_img2img_changes_only_what_the_mask_is_white_in(client: TestClient) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    url = f"data:image/png;base64,{b64(mask)}"
    body = {"init_images": [RED], "mask": url, "mask_blur": 0, "denoising_strength": 1, "width": 64, "height": 64}
    answer = drawn(client, "img2img", **body)
    picture = picture_of(answer["images"][0]).convert("RGB")
    assert picture.getpixel((3, 30)) == (255, 0, 0) != picture.getpixel((60, 30))
    assert answer["parameters"]["init_images"] is None and answer["parameters"]["mask"] is None
    inverted = drawn(client, "img2img", **{**body, "inpainting_mask_invert": 1, "include_init_images": True})
    assert picture_of(inverted["images"][0]).convert("RGB").getpixel((60, 30)) == (255, 0, 0)
    assert inverted["parameters"]["init_images"] == [RED]


def test_a_mask_of_another_size_is_brought_to_the_pictures(client: TestClient) -> None:
    from maquette.studio.sdapi.uploads import mask_for

    mask = Image.new("L", (8, 8))
    mask.paste(255, (4, 0, 8, 8))
    turned, stream = Image.Exif(), BytesIO()
    turned[0x0112] = 6
    Image.new("RGB", (60, 40)).save(stream, format="JPEG", exif=turned)
    made = Image.open(BytesIO(mask_for(base64.b64decode(b64(mask)), stream.getvalue())))
    assert made.size == (40, 60) and made.getpixel((1, 30)) == 0 and made.getpixel((38, 30)) == 255
    body = {"init_images": [RED], "mask": b64(mask), "mask_blur": 0, "denoising_strength": 1, "width": 64, "height": 64}
    picture = picture_of(drawn(client, "img2img", **body)["images"][0]).convert("RGB")
    assert picture.getpixel((3, 30)) == (255, 0, 0) != picture.getpixel((60, 30))


def test_noise_of_a_card_is_that_of_nvidias(client: TestClient, engine: DrawingEngine) -> None:
    from maquette.studio.sdapi.requests import TextToImage
    from maquette.studio.sdapi.settings import wish_of

    for name, source in (("GPU", "NV"), ("NV", "NV"), ("CPU", "CPU"), (5, "CPU")):
        assert wish_of(TextToImage(override_settings={"randn_source": name}), engine)[0]["noise_source"] == source


@pytest.mark.parametrize(
    ("image", "status", "detail"),
    [
        ("http://127.0.0.1/a.png", 422, "init_images[0] is an address, and nothing is fetched"),
        ("HTTPS://example.org/a.png", 422, "init_images[0] is an address"),
        ("file:///etc/passwd", 422, "init_images[0] is an address"),
        ("not base64!", 422, "init_images[0] is no picture in base64."),
        (base64.b64encode(b"<svg/>").decode(), 422, "init_images[0] is no picture that can be read"),
        (b64(Image.new("1", (5000, 4000))), 413, "init_images[0] has 5000 x 4000 pixels"),
    ],
)
def test_pictures_that_are_none(client: TestClient, image: str, status: int, detail: str) -> None:
    response = client.post("/sdapi/v1/img2img", json={"prompt": "a cat", "init_images": [image]})
    assert response.status_code == status and response.json()["detail"].startswith(detail)


def test_img2img_needs_a_picture(client: TestClient) -> None:
    response = client.post("/sdapi/v1/img2img", json={"prompt": "a cat"})
    assert (response.status_code, response.json()["detail"]) == (404, "Init image not found")


def test_png_info_gives_back_what_was_drawn(client: TestClient) -> None:
    answer = drawn(client, negative_prompt="a dog")
    read = client.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert read["info"] == answer["info"]["infotexts"][0]
    assert read["parameters"] == parse_infotext(read["info"])
    assert read["parameters"]["Negative prompt"] == "a dog" and read["items"] == {}
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "hello")
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format="PNG", pnginfo=info)
    other = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(stream.getvalue()).decode()}).json()
    assert other == {"info": "", "items": {"Comment": "hello"}, "parameters": {}}
    assert client.post("/sdapi/v1/png-info", json={"image": ""}).status_code == 404


def test_enlarges_by_lanczos(client: TestClient) -> None:
    body = {"image": RED, "upscaling_resize": 1.5, "upscaler_1": "Lanczos", "codeformer_weight": 0}
    picture = picture_of(client.post("/sdapi/v1/extra-single-image", json=body).json()["image"])
    assert picture.size == (96, 96)
    cropped = {"resize_mode": 1, "upscaling_resize_w": 40, "upscaling_resize_h": 80}
    batch = {"imageList": [{"data": RED, "name": "a"}] * 2, **cropped}
    answer = client.post("/sdapi/v1/extra-batch-images", json=batch).json()
    assert [picture_of(text).size for text in answer["images"]] == [(40, 80)] * 2


def test_progress_while_drawing_and_interrupt(client: TestClient, engine: DrawingEngine) -> None:
    idle = client.get("/sdapi/v1/progress").json()
    assert idle["progress"] == 0.0 and idle["state"]["job_count"] == 0 and idle["current_image"] is None
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(drawn(client, steps=150, n_iter=3)))
    shown = threading.Event()
    show = engine._show

    def watched(on: Any, progress: Any) -> None:
        show(on, progress)
        if progress.step > 160 and progress.preview and not shown.is_set():
            shown.set()

    engine._show = watched  # type: ignore[method-assign]
    thread.start()
    assert shown.wait(20)
    now = client.get("/sdapi/v1/progress?skip_current_image=false").json()
    assert 0.3 < now["progress"] < 1 and now["eta_relative"] > 0
    assert (now["state"]["job_count"], now["state"]["sampling_steps"]) == (3, 150) and now["state"]["job_no"] >= 1
    assert picture_of(now["current_image"]).size == (8, 8)
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    assert client.post("/sdapi/v1/interrupt").json() == {}
    thread.join(20)
    assert answers[0]["info"]["interrupted"] and len(answers[0]["images"]) == 2
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0.0


def test_busy_is_503_and_progress_stays_0(client: TestClient, engine: DrawingEngine) -> None:
    engine.blocked = lambda: "Anna trains; pause it to draw."
    response = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "30")
    assert response.json() == {
        "error": "Busy",
        "detail": "Anna trains; pause it to draw.",
        "body": "",
        "errors": "Anna trains; pause it to draw.",
    }
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_controlnet_units(client: TestClient) -> None:
    unit = {
        "image": RED,
        "module": "canny",
        "model": "pocket-canny [1234abcd]",
        "weight": 0.5,
        "control_mode": "Balanced",
    }
    unit |= {
        "resize_mode": "Resize and Fill",
        "threshold_a": 64,
        "guidance_end": 0.8,
        "hr_option": "Both",
        "mask": None,
    }
    plain = drawn(client)["images"]
    assert drawn(client, alwayson_scripts={"ControlNet": {"args": [unit]}})["images"] != plain
    assert drawn(client, alwayson_scripts={"controlnet": {"args": [{**unit, "enabled": False}]}})["images"] == plain
    for empty in ({}, {"ControlNet": {"args": []}}, {"ADetailer": {"args": []}}, None):
        assert drawn(client, alwayson_scripts=empty)["images"] == plain
    for key, value, status in (
        ("model", "gone", 404),
        ("module", "openpose", 404),
        ("weight", 9, 422),
        ("control_mode", 7, 422),
        ("image", "http://x/y.png", 422),
    ):
        wrong = {"prompt": "a cat", "alwayson_scripts": {"controlnet": {"args": [{**unit, key: value}]}}}
        assert client.post("/sdapi/v1/txt2img", json=wrong).status_code == status


def test_controlnet_lists(client: TestClient) -> None:
    assert client.get("/controlnet/version").json() == {"version": 3}
    assert client.get("/controlnet/model_list").json() == {"model_list": ["pocket-canny"]}
    assert "canny" in client.get("/controlnet/module_list").json()["module_list"]
    assert client.get("/controlnet/settings").json()["control_net_unit_count"] == 4
    edges = Image.new("RGB", (64, 64))
    edges.paste("white", (16, 16, 48, 48))
    body = {"controlnet_module": "canny", "controlnet_input_images": [b64(edges)]}
    answer = client.post("/controlnet/detect", json=body).json()
    colours = picture_of(answer["images"][0]).convert("L").getcolors()
    assert colours is not None and {colour for _, colour in colours} == {0, 255}
    wrong = json.dumps({**body, "controlnet_module": "blur", "controlnet_threshold_a": 7777})
    for a in ("NaN", "Infinity", "1e308"):
        sent = {"content": wrong.replace("7777", a), "headers": {"content-type": "application/json"}}
        refused = client.post("/controlnet/detect", **sent)
        assert refused.status_code == 422 and "controlnet_threshold_a" in refused.json()["detail"]


# Bodies as clients send them, written from the lists of their fields.
SILLY_TAVERN = {
    "prompt": "a cat <lora:anna:1>",
    "negative_prompt": "",
    "sampler_name": "Euler a",
    "scheduler": "karras",
    "steps": 2,
    "cfg_scale": 7,
    "width": 64,
    "height": 64,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
OPEN_WEB_UI = {"prompt": "a cat", "batch_size": 1, "width": 64, "height": 64, "steps": 2, "negative_prompt": ""}


@pytest.mark.parametrize("body", [SILLY_TAVERN, OPEN_WEB_UI], ids=["SillyTavern", "Open WebUI"])
def test_bodies_of_clients(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/sdapi/v1/txt2img", json=body, headers={"authorization": "Basic Og=="})
    assert response.status_code == 200
    assert picture_of(response.json()["images"][0]).size == (64, 64)
    assert isinstance(json.loads(response.json()["info"])["all_seeds"][0], int)
    assert json.loads(response.json()["info"])["warnings"] == []


def test_openai_sends_pictures(client: TestClient) -> None:
    body = {"prompt": "a cat", "n": 2, "size": "64x96", "response_format": "b64_json", "seed": 1, "user": "me"}
    answer = client.post("/v1/images/generations", json=body).json()
    assert [picture_of(each["b64_json"]).size for each in answer["data"]] == [(64, 96)] * 2
    assert isinstance(answer["created"], int)
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["pocket", "Mine"]
    for wrong, status, code in (
        ({"response_format": "url"}, 400, "httpexception"),
        ({"size": "63x64"}, 400, "httpexception"),
        ({"model": "dall-e-9"}, 404, "model_not_found"),
        ({"n": 11}, 400, "validationerror"),
    ):
        response = client.post("/v1/images/generations", json={**body, **wrong})
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["code"]) == (status, "invalid_request_error", code)
        assert error["message"]
