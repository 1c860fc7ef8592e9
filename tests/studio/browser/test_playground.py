"""The Playground in a real Chromium (script 11, and script 18)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests.studio.browser.conftest import Watched, axe, drop
from tests.studio.conftest import Running
from tests.studio.serving import lora_file

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect  # noqa: E402

Visit = Callable[..., Page]
OTHER_VIEWS = (("dark", 1440), ("light", 768), ("dark", 768), ("light", 360))


@pytest.fixture(autouse=True)
def lora(studio: Running) -> None:
    lora_file(studio.studio.queue.folder / "files" / "zoe.safetensors")


def drawn(page: Page, pictures: int = 1) -> list[Image.Image]:
    """Press Ctrl+Enter, and read what is shown then."""
    expect(page.get_by_test_id("generate")).to_have_text("Generate")
    with page.expect_response(lambda answer: answer.url.endswith("/api/draw")):
        page.get_by_test_id("prompt").press("Control+Enter")
    expect(page.get_by_test_id("picture")).to_have_count(pictures)
    expect(page.get_by_test_id("generate")).to_have_text("Generate")
    return [fetched(page, str(each.get_attribute("src"))) for each in page.get_by_test_id("picture").all()]


def fetched(page: Page, url: str) -> Image.Image:
    answer = page.context.request.get(page.url.partition("/play")[0] + url)
    return Image.open(BytesIO(answer.body())).convert("RGB")


def differ(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a, b).getbbox() is not None


def test_with_and_without_a_lora_at_one_seed(visit: Visit) -> None:
    page = visit("/play")
    page.get_by_test_id("add-lora").select_option("zoe")
    expect(page.get_by_test_id("prompt")).to_have_value("a photo of a red robot on a green background <lora:zoe:1>")
    page.get_by_test_id("both").check()
    with_lora, without = drawn(page, 2)
    assert differ(with_lora, without)
    page.get_by_test_id("again").click()
    seed = page.get_by_test_id("seed").input_value()
    assert int(seed) >= 0
    page.get_by_test_id("chip-weight").fill("0")
    expect(page.get_by_test_id("prompt")).to_have_value("a photo of a red robot on a green background <lora:zoe:0>")
    page.get_by_test_id("both").uncheck()
    [none] = drawn(page)
    assert not differ(none, without)
    page.get_by_test_id("chip-remove").click()
    expect(page.get_by_test_id("chips")).to_be_empty()
    assert not differ(drawn(page)[0], without)


def test_a_dropped_picture_brings_its_settings_back(visit: Visit) -> None:
    page = visit("/play")
    page.get_by_test_id("prompt").fill("a (blue:1.2) car <lora:zoe:0.5>")
    page.get_by_test_id("negative").fill("rain, <b>fog</b>")
    page.get_by_test_id("more").get_by_text("More").click()
    values = {"seed": "77", "width": "96", "height": "64", "steps": "5", "cfg_scale": "6.5", "clip_skip": "2"}
    values |= {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    for name, value in values.items():
        part = page.get_by_test_id(name)
        part.select_option(value) if name in ("sampler_name", "scheduler") else part.fill(value)
    [first] = drawn(page)
    assert first.size == (96, 64)
    url = str(page.get_by_test_id("picture").get_attribute("src"))
    data = page.context.request.get(page.url.partition("/play")[0] + url).body()
    page.reload()
    expect(page.get_by_test_id("gallery").get_by_role("button").first).to_be_visible()
    drop(page, "main", data)
    for name, value in (values | {"prompt": "a (blue:1.2) car <lora:zoe:0.5>", "negative": "rain, <b>fog</b>"}).items():
        expect(page.get_by_test_id(name)).to_have_value(value)
    expect(page.get_by_test_id("chip-weight")).to_have_value("0.5")
    assert not differ(drawn(page)[0], first)
    drop(page, "main", png(Image.new("RGB", (8, 8))))
    expect(page.get_by_test_id("toasts")).to_contain_text("This picture says nothing of how it was drawn.")


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "scale", "zoom"),
    [
        pytest.param((1280, 800), 1, 1, marks=pytest.mark.heavy),
        pytest.param((1280, 800), 2, 1),
        pytest.param((1024, 640), 1.25, 1, marks=pytest.mark.heavy),
        pytest.param((1280, 800), 1, 1.25),
        pytest.param((360, 740), 3, 1, marks=pytest.mark.heavy),
    ],
    ids=["plain", "device scale 2", "zoom 125 %", "style zoom 125 %", "phone"],
)
def test_what_is_painted_is_under_the_pointer(visit: Visit, size: tuple[int, int], scale: float, zoom: float) -> None:
    page = visit("/play", *size, device_scale_factor=scale)
    if zoom != 1:
        page.evaluate(f"document.documentElement.style.zoom = {zoom}")
    begun = Image.effect_mandelbrot((960, 384), (-2, -1, 1, 1), 40).convert("RGB")
    page.get_by_test_id("mode-inpaint").click()
    drop(page, "[data-stage]", png(begun))
    expect(page.get_by_test_id("width")).to_have_value("960")
    canvas = page.get_by_test_id("mask")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for x, y in ((0.25, 0.5), (0.5, 0.5)):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        page.mouse.down() if x == 0.25 else None
    page.mouse.up()
    url = page.evaluate("brush.url()")
    mask = Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L")
    assert mask.size == (960, 384)
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    half = 40 * 960 / 512 / 2
    assert left == pytest.approx(240 - half, abs=6) and right == pytest.approx(480 + half, abs=6)
    assert top == pytest.approx(192 - half, abs=6) and bottom == pytest.approx(192 + half, abs=6)
    page.get_by_test_id("mask_blur").fill("2")
    page.get_by_test_id("denoising_strength").fill("1")
    [made] = drawn(page)
    changed = ImageChops.difference(made, begun).getbbox()
    assert changed is not None
    assert left - 8 <= changed[0] <= left + 8 and right - 8 <= changed[2] <= right + 8
    assert top - 8 <= changed[1] <= top + 8 and bottom - 8 <= changed[3] <= bottom + 8


def test_keys_of_the_brush(visit: Visit) -> None:
    page = visit("/play")
    page.get_by_test_id("mode-inpaint").click()
    drop(page, "[data-stage]", png(Image.new("RGB", (128, 128))))
    canvas = page.get_by_test_id("mask")
    expect(canvas).to_be_visible()

    def painted() -> bool:
        return bool(page.evaluate("brush.url()"))

    canvas.click()
    assert painted()
    page.keyboard.press("]")
    expect(page.get_by_test_id("brush")).to_have_value("48")
    page.keyboard.press("[")
    expect(page.get_by_test_id("brush")).to_have_value("40")
    page.keyboard.press("e")
    expect(page.get_by_test_id("erase")).to_have_attribute("aria-pressed", "true")
    canvas.click()
    assert not painted()
    page.keyboard.press("Control+z")
    assert painted()
    page.get_by_test_id("mask-clear").click()
    assert not painted()
    page.get_by_test_id("mask-undo").click()
    assert painted()


def test_ctrl_up_and_down_weigh_words_and_loras(visit: Visit) -> None:
    page = visit("/play")
    prompt = page.get_by_test_id("prompt")
    prompt.fill("a red robot")
    prompt.evaluate("area => area.setSelectionRange(3, 3)")
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.1) robot")
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.2) robot")
    prompt.press("Control+ArrowDown")
    prompt.press("Control+ArrowDown")
    expect(prompt).to_have_value("a red robot")
    prompt.fill("a robot <lora:zoe:0.5>")
    prompt.evaluate("area => area.setSelectionRange(12, 12)")
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a robot <lora:zoe:0.6>")
    expect(page.get_by_test_id("chip-weight")).to_have_value("0.6")


def test_progress_preview_and_interrupt(visit: Visit, monkeypatch: pytest.MonkeyPatch, studio: Running) -> None:
    studio.studio.engine.make_room()  # a new process, for another pace
    monkeypatch.setenv("MAQUETTE_FAKE_STEP", "0.05")
    page = visit("/play")
    page.get_by_test_id("more").get_by_text("More").click()
    page.get_by_test_id("steps").fill("150")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("generate")).to_have_text("Interrupt")
    expect(page.get_by_alt_text("Preview")).to_be_visible()
    expect(page.get_by_test_id("progress-text")).to_contain_text("of 150")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("warnings")).to_contain_text("Interrupted: the picture is as it was then.")
    expect(page.get_by_test_id("picture")).to_have_count(1)
    expect(page.get_by_alt_text("Preview")).to_have_count(0)
    studio.studio.engine.make_room()


def test_what_goes_wrong_is_a_sentence_and_the_form_stays(visit: Visit, watched: Watched) -> None:
    watched.refusals = True
    page = visit("/play")
    page.get_by_test_id("prompt").fill("fake crash")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("toasts")).to_contain_text("The drawing process ended by itself (code 9).")
    expect(page.get_by_test_id("prompt")).to_have_value("fake crash")
    page.get_by_test_id("prompt").fill("a cat <lora:nobody:1> <img src=x onerror=alert(1)>")
    drawn(page)
    expect(page.get_by_test_id("warnings")).to_contain_text("There is no LoRA 'nobody'; there are zoe.")
    page.get_by_test_id("about").get_by_text("Settings of this picture").click()
    expect(page.get_by_test_id("infotext")).to_contain_text("<img src=x onerror=alert(1)>")


def test_the_gallery_keeps_and_deletes(visit: Visit) -> None:
    page = visit("/play")
    page.get_by_test_id("n_iter").fill("3")
    drawn(page, 3)
    thumbs = page.get_by_test_id("gallery").get_by_role("button")
    count = thumbs.count()
    page.reload()
    expect(thumbs).to_have_count(count)
    thumbs.first.click()
    expect(page.get_by_test_id("picture")).to_have_count(1)
    page.get_by_test_id("remove").click()
    expect(thumbs).to_have_count(count - 1)
    page.reload()
    expect(thumbs).to_have_count(count - 1)


def test_the_api_call_is_that_of_the_form(visit: Visit, studio: Running) -> None:
    page = visit("/play")
    page.get_by_test_id("prompt").fill("it's a cat")
    page.get_by_test_id("seed").fill("5")
    page.get_by_test_id("api-call").click()
    text = str(page.get_by_test_id("call-curl").text_content())
    assert text.startswith(f"curl {studio.address}/sdapi/v1/txt2img -H 'Content-Type: application/json' -d '")
    told = json.loads(text.partition("-d '")[2][:-1].replace("'\\''", "'"))
    assert (told["prompt"], told["seed"], told["sampler_name"]) == ("it's a cat", 5, "Euler")
    answer = studio.client.post("/sdapi/v1/txt2img", json=told)
    assert answer.status_code == 200 and json.loads(answer.json()["info"])["seed"] == 5
    python = str(page.get_by_test_id("call-Python").text_content())
    compile(python, "call.py", "exec")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("api-call")).to_be_focused()


def test_a_grid(visit: Visit, watched: Watched) -> None:
    watched.refusals = True
    page = visit("/play")
    page.get_by_test_id("grid").get_by_text("X/Y/Z grid").click()
    page.get_by_test_id("x-axis").fill("seed 1-3")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("toasts")).to_contain_text("Write an axis as NAME=VALUES")
    page.get_by_test_id("x-axis").fill("seed=1-3")
    drawn(page)


@pytest.mark.heavy
def test_a_job_brings_its_lora_and_words(visit: Visit, studio: Running, watched: Watched) -> None:
    watched.refusals = True
    project = studio.project("Robby", photos=4)
    job = studio.train(project)
    studio.wait(job, "running", step=2)
    answer = studio.client.post("/sdapi/v1/txt2img", json={"prompt": "a cat"})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert "has the machine: pause it to draw." in answer.json()["detail"]
    assert studio.client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0
    page = visit("/play")
    expect(page.get_by_test_id("blocked")).to_contain_text("has the machine: pause it to draw.")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("toasts")).to_contain_text("pause it to draw.")
    studio.wait(job, "finished")
    page.goto(f"{studio.address}/play?job={job}")
    phrase = studio.studio.store.project(project).phrase
    prompt = page.get_by_test_id("prompt").input_value()
    assert prompt.startswith(f"a photo of {phrase} <lora:")
    drawn(page)
    expect(page.get_by_test_id("warnings")).to_be_hidden()


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 1440), ("dark", 360), *(pytest.param(*case, marks=pytest.mark.heavy) for case in OTHER_VIEWS)],
)
def test_no_barriers_and_no_sideways_scrolling(visit: Visit, theme: Any, width: int) -> None:
    page = visit("/play", width, 800, color_scheme=theme)
    page.get_by_test_id("add-lora").select_option("zoe")
    page.get_by_test_id("both").check()
    drawn(page, 2)
    page.get_by_test_id("send-inpaint").click()
    expect(page.get_by_test_id("mask")).to_be_visible()
    for part in ("more", "grid", "about"):
        page.get_by_test_id(part).locator("summary").click()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.get_by_test_id("generate")).to_be_in_viewport()
    small = page.evaluate(
        """() => [...document.querySelectorAll("main button, main select, main input, .actionbar button")]
            .filter(each => each.checkVisibility() && each.type !== "file" && each.type !== "checkbox")
            .map(each => [each.outerHTML.slice(0, 80), each.getBoundingClientRect().height])
            .filter(each => each[1] < 43.5)"""
    )
    assert small == []
