"""The Playground with the real pocket base (script 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from PIL import ImageChops

from maquette import families
from tests.sampling.random_loras import write_lora
from tests.studio.browser.conftest import drop, serving
from tests.studio.browser.test_playground import differ, drawn
from tests.studio.conftest import Running

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect  # noqa: E402

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MAQUETTE_ENGINE", raising=False)
        with serving(tmp_path_factory.mktemp("studio") / "data") as running:
            place = running.studio.queue.folder / "files"
            place.mkdir()
            write_lora(families.load("pocket"), place / "zoe.safetensors")
            yield running


def test_loras_masks_grids_and_settings(visit: Callable[..., Page], studio: Running) -> None:
    page = visit("/play")
    page.get_by_test_id("more").get_by_text("More").click()
    page.get_by_test_id("steps").fill("6")
    page.get_by_test_id("add-lora").select_option("zoe")
    page.get_by_test_id("both").check()
    with_lora, without = drawn(page, 2)
    assert with_lora.size == (64, 64) and differ(with_lora, without)
    page.get_by_test_id("both").uncheck()
    page.get_by_test_id("again").click()
    page.get_by_test_id("chip-weight").fill("0")
    [none] = drawn(page)
    assert not differ(none, without)
    url = str(page.get_by_test_id("picture").get_attribute("src"))
    page.get_by_test_id("send-inpaint").click()
    canvas = page.get_by_test_id("mask")
    canvas.click()
    page.get_by_test_id("mask_blur").fill("0")
    page.get_by_test_id("denoising_strength").fill("1")
    [part] = drawn(page)
    changed = ImageChops.difference(part, none).getbbox()
    # A dot of 5 pixels in the middle, in cells of 4.
    assert changed is not None and changed[0] >= 24 and changed[2] <= 40
    page.get_by_test_id("mode-txt2img").click()
    page.get_by_test_id("grid").get_by_text("X/Y/Z grid").click()
    page.get_by_test_id("x-axis").fill("weight=0, 1")
    [grid] = drawn(page)
    assert grid.width > 128
    page.reload()
    drop(page, "main", page.context.request.get(page.url.partition("/play")[0] + url).body())
    expect(page.get_by_test_id("steps")).to_have_value("6")
    assert not differ(drawn(page)[0], none)
