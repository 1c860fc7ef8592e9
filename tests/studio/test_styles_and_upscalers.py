"""What A1111's users keep as files: styles.csv, upscalers; and pictures in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from maquette.studio.drawings import Refused
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
from tests.studio.serving import RED, app_of, drawn, picture_of

STYLES = (
    "\ufeffname,prompt,negative_prompt\r\n"
    "None,,\r\n"
    'Oil,"an oil painting of {prompt}, thick paint",photo\r\n'
    'Sharp,"sharp focus, 4k",blurry\r\n'
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DrawingEngine]:
    made = DrawingEngine(Library([], []), tmp_path / "data", fake=True)
    yield made
    made.close()


@pytest.fixture
def client(engine: DrawingEngine) -> TestClient:
    return TestClient(app_of(engine))


def test_styles_are_those_of_a1111s_file(client: TestClient, engine: DrawingEngine) -> None:
    assert client.get("/sdapi/v1/prompt-styles").json() == []
    engine.folder.mkdir(exist_ok=True)
    (engine.folder / "styles.csv").write_text(STYLES, encoding="utf-8")
    assert client.get("/sdapi/v1/prompt-styles").json()[1] == {
        "name": "Oil", "prompt": "an oil painting of {prompt}, thick paint", "negative_prompt": "photo",
    }  # fmt: skip
    info = drawn(client, styles=["Sharp", "Oil", "Gone"], negative_prompt="rain")["info"]
    assert info["prompt"] == "an oil painting of a cat, sharp focus, 4k, thick paint"
    assert info["negative_prompt"] == "rain, blurry, photo" and info["styles"] == ["Sharp", "Oil", "Gone"]
    assert info["warnings"] == ["There is no style 'Gone'; there are None, Oil, Sharp. Drawn without it."]
    assert drawn(client, styles=["None"])["info"]["prompt"] == "a cat"
    for other in (None, "Oil", [], [None, ""]):
        assert drawn(client, styles=other)["info"]["warnings"] == []


def test_the_second_drawing_has_its_schedule_and_the_styles(
    client: TestClient, engine: DrawingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.folder.mkdir(exist_ok=True)
    (engine.folder / "styles.csv").write_text(STYLES, encoding="utf-8")
    asked: list[dict[str, Any]] = []
    draw = engine.draw
    monkeypatch.setattr(engine, "draw", lambda wish: asked.append(wish) or draw(wish))
    keys = ("hires_sampler", "hires_schedule_type", "hires_prompt", "hires_negative_prompt")
    hires = {"enable_hr": True, "sampler_name": "DPM++ 2M", "hr_prompt": "a dog", "styles": ["Oil"]}
    drawn(client, **hires, hr_scheduler="karras")
    assert [asked[-1].get(key) for key in keys] == ["DPM++ 2M", "Karras", "an oil painting of a dog, thick paint", None]
    drawn(client, **hires, hr_sampler_name="Euler", hr_scheduler="Use same scheduler", hr_negative_prompt="rain")
    told = [asked[-1].get(key) for key in keys]
    assert told == ["Euler", "Automatic", "an oil painting of a dog, thick paint", "rain, photo"]
    drawn(client, **hires, hr_sampler_name="Use same sampler", hr_scheduler="Use same scheduler")
    assert [asked[-1].get(key) for key in keys[:2]] == [None, None]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"a,b\n1,2\n", "styles.csv is no file of styles: its first line names no column 'name'."),
        (b"name,prompt\n\xff\n", "styles.csv is not UTF-8 text"),
        (b"name\n" + b'"' + b"x" * 200_000 + b'"\n', "styles.csv is no file of styles: field larger than field limit"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(
    client: TestClient,
    engine: DrawingEngine,
    text: bytes,
    sentence: str,
) -> None:
    engine.folder.mkdir(exist_ok=True)
    (engine.folder / "styles.csv").write_bytes(text)
    answer = client.get("/sdapi/v1/prompt-styles")
    assert answer.status_code == 422 and answer.json()["detail"].startswith(sentence)


def test_files_are_upscalers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "upscalers"
    folder.mkdir()
    for name in ("4x-Sharp.pth", "small.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"x")
    made = DrawingEngine(Library([], [], upscalers=[folder]), tmp_path / "data", fake=True)
    asked: list[dict[str, Any]] = []
    draw = made.draw
    monkeypatch.setattr(made, "draw", lambda wish: asked.append(wish) or draw(wish))
    try:
        client = TestClient(app_of(made))
        listed = {each["name"]: each["model_path"] for each in client.get("/sdapi/v1/upscalers").json()}
        files = {"4x-Sharp": str(folder / "4x-Sharp.pth"), "small": str(folder / "small.safetensors")}
        assert listed == {"None": None, "Lanczos": None, "Nearest": None} | files
        for name, found in (("4x-sharp", files["4x-Sharp"]), ("None", "Nearest"), ("lanczos", "Lanczos")):
            drawn(client, enable_hr=True, hr_upscaler=name)
            assert asked.pop()["hires_upscaler"] == found
        wrong = client.post("/sdapi/v1/extra-single-image", json={"image": RED, "upscaler_1": "4x-Sharp"})
        assert wrong.status_code == 404
        assert wrong.json()["detail"] == "Upscaler not found; pictures are enlarged here by None, Lanczos, Nearest."
    finally:
        made.close()


def test_the_studio_has_a_folder_of_upscalers(studio: Any) -> None:
    folder = studio.studio.folder / "upscalers"
    folder.mkdir()
    (folder / "mine.pth").write_bytes(b"x")
    assert "mine" in [each["name"] for each in studio.client.get("/sdapi/v1/upscalers").json()]


def test_another_base_for_the_second_drawing_is_called_by_name(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "enable_hr": True, "hr_checkpoint_name": "gone"})
    assert answer.status_code == 404 and answer.json()["detail"].startswith("There is no model 'gone'")


def test_pictures_in_words(client: TestClient, engine: DrawingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**body: str) -> tuple[int, Any]:
        answer = client.post("/sdapi/v1/interrogate", json=body)
        return answer.status_code, answer.json().get("caption") or answer.json()["detail"]

    assert told(image=RED) == (200, "a picture, as blip sees it")
    assert told(image=RED, model="deepdanbooru") == (200, "a picture, as wd14 sees it")
    assert told(image="") == (404, "Image not found")
    assert told(image=RED, model="other") == (404, "Model not found; there are clip, deepdanbooru.")
    assert told(image="http://127.0.0.1/x.png")[0] == 422
    assert not list(engine.temporary.iterdir()), "the picture is nowhere afterwards"

    def busy() -> None:
        raise Refused("A job has the machine: pause it to draw.")

    monkeypatch.setattr(engine, "require_free", busy)
    assert told(image=RED)[0] == 503


@pytest.mark.heavy
def test_a_captioner_without_weights_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_MODELS", str(tmp_path / "none"))
    made = DrawingEngine(Library([], []), tmp_path / "data", fake=False)
    try:
        answer = TestClient(app_of(made)).post("/sdapi/v1/interrogate", json={"image": RED})
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith("Model not found: The captioner blip has no weights: put ")
    finally:
        made.close()


def test_an_enlarged_picture_is_one_of_pixels(client: TestClient) -> None:
    for name in ("None", "Nearest"):
        answer = client.post("/sdapi/v1/extra-single-image", json={"image": RED, "upscaler_1": name})
        assert picture_of(answer.json()["image"]).size == (128, 128)
