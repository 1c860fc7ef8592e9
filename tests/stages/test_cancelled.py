"""A stage whose caller has set `cancel` ends at its next event and leaves no half result."""

from pathlib import Path

import pytest

from maquette import families
from maquette.config.weights import ResizeConfig
from maquette.events import Cancel, Cancelled, Event
from maquette.stages import resize
from tests.sampling.random_loras import write_lora


def test_nothing_is_written_after_cancel(tmp_path: Path) -> None:
    lora = write_lora(families.load("pocket"), tmp_path / "me.safetensors")
    config, cancel, heard = ResizeConfig(lora=lora, out=tmp_path / "small.safetensors", rank=1), Cancel(), []

    def listen(event: Event) -> None:
        heard.append(event.data)
        cancel.set()

    with pytest.raises(Cancelled, match="Stopped; nothing more was written"):
        resize.run(config, listen, cancel)
    assert [data["what"] for data in heard] == ["resizing"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["me.safetensors"]
    assert Path(resize.run(config).path).exists()
