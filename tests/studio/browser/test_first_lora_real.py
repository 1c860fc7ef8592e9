"""From the empty page to a LoRA that draws, by the real engine with the pocket base (script 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import load

from tests.studio.browser.conftest import serving
from tests.studio.conftest import Running
from tests.studio.test_real_engine import SHORT

pytestmark = pytest.mark.heavy
PATIENCE = 400_000  # milliseconds, on a machine that has other work


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MAQUETTE_ENGINE", raising=False)
        with serving(tmp_path_factory.mktemp("studio") / "data") as running:
            yield running


def test_from_the_drawn_photos_to_a_chosen_lora(visit: Callable[..., Page], studio: Running) -> None:
    page = visit("/")
    page.get_by_test_id("demo").click()
    page.wait_for_url("**/photos")
    expect(page.get_by_test_id("photo")).to_have_count(14)
    project = studio.client.get("/api/projects").json()[0]["id"]
    short = {key: value for key, value in SHORT.items() if key != "sample_prompts"}  # a toy's training, shorter still
    assert studio.client.patch(f"/api/projects/{project}", json={"settings": {"changed": short}}).status_code == 200
    page.get_by_test_id("continue").click()
    page.wait_for_url("**/train")
    expect(page.get_by_test_id("preflight")).to_have_attribute("data-ready", "yes")
    page.get_by_test_id("train").click()
    expect(page.get_by_test_id("samples").locator("img").first).to_be_visible(timeout=PATIENCE)
    page.wait_for_url("**/results", timeout=PATIENCE)
    step = int(page.get_by_test_id("chosen").get_attribute("data-step") or 0)
    assert step in (6, 12)
    expect(page.get_by_test_id("reason").first).to_contain_text(f"step {step}")
    with page.expect_download() as download:
        page.get_by_test_id("download").click()
    assert all(key.startswith("lora_unet_") for key in load(download.value.path().read_bytes()))
    page.get_by_test_id("try").click()
    page.wait_for_url("**/play?job=*")
    assert "<lora:robot:" in page.get_by_test_id("prompt").input_value()
    page.get_by_test_id("more").get_by_text("More").click()
    page.get_by_test_id("steps").fill("3")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("picture")).to_have_count(1, timeout=PATIENCE)
    expect(page.get_by_test_id("warnings")).to_be_hidden()
