"""Settings changed in the page outlive the server; options of the command line come first; the file is a stranger's."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.main import main
from maquette.config.serve import ServeSettings
from maquette.config.studio import StudioSettings
from maquette.studio import serve
from maquette.studio.core import Studio


def opened(folder: Path, **given: Any) -> tuple[StudioSettings, list[str]]:
    """The settings and notes of a studio on a folder, which ends at once."""
    studio = Studio.open(StudioSettings(data=folder, **given))
    studio.close()
    return studio.settings, studio.notes


def base_in(folder: Path, name: str = "mine") -> str:
    """The path of a base model's folder among the studio's own."""
    base = folder / "bases" / name
    base.mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    return str(base)


def test_what_the_page_changed_is_there_after_a_new_start(serve: Callable, tmp_path: Path) -> None:
    base = base_in(tmp_path / "data")
    studio = serve()
    assert studio.client.patch("/api/settings", json={}).json()["api"] is False
    assert not (tmp_path / "data" / "settings.json").exists()
    assert studio.client.patch("/api/settings", json={"api": True}).json()["api"] is True
    told = studio.client.patch("/api/settings", json={"base": base}).json()
    assert (told["api"], told["base"]) == (True, base)
    assert json.loads((tmp_path / "data" / "settings.json").read_text()) == {"api": True, "base": base}
    assert [file.name for file in (tmp_path / "data").glob(".*.part")] == []
    studio.served.end()
    studio.studio.close()
    settings, notes = opened(tmp_path / "data")
    assert (settings.api, settings.base, notes) == (True, base, [])
    settings, notes = opened(tmp_path / "data", api=False, base="pocket")
    assert (settings.api, settings.base, notes) == (False, "pocket", [])


def test_the_command_line_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.json").write_text('{"api": true}')
    seen: list[bool] = []

    class Seen(serve.Served):
        def run(self) -> None:
            seen.append(self.studio.settings.api)
            self.socket.close()
            self.studio.close()

    monkeypatch.setattr(serve, "Served", Seen)
    for option in ([], ["--no-api"], ["--api"]):
        with pytest.raises(SystemExit) as ended:
            main(["studio", "--data", str(tmp_path), "--no-browser", "--port", "0", *option])
        assert not ended.value.code
    assert seen == [True, False, True]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"api": True}


@pytest.mark.parametrize("text", ["{", "[]", "", "\0\0", '{"api": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_a_damaged_file_is_said_and_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    settings, notes = opened(tmp_path)
    assert (settings.api, settings.base) == (False, "pocket")
    assert len(notes) == 1
    assert notes[0].startswith("The settings of the page could not be read and are as usual again: ")
    assert str(tmp_path / "settings.json") in notes[0]
    studio = Studio.open(StudioSettings(data=tmp_path))
    studio.change_settings({"api": True})
    studio.close()
    assert opened(tmp_path)[0].api is True


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "settings.json")
    settings, notes = opened(tmp_path)
    assert settings.api is False and "is a named pipe (FIFO), not an ordinary file" in notes[0]


def test_nothing_else_can_be_set_by_the_file(tmp_path: Path) -> None:
    """Neither a base that the studio does not offer, nor who may come in, nor where things lie."""
    elsewhere = base_in(tmp_path / "elsewhere")
    hostile = {"base": elsewhere, "lan": True, "host": "0.0.0.0", "password": "12345678", "data": "/", "api": "yes"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.json").write_text(json.dumps(hostile))
    settings, notes = opened(tmp_path / "data")
    assert settings == StudioSettings(data=tmp_path / "data")
    assert notes == [
        f'{tmp_path / "data" / "settings.json"}: "api" is neither true nor false and was not read.',
        "The base chosen in the settings is not there any more; it is pocket again.",
    ]
    (tmp_path / "data" / "settings.json").write_text('{"base": ["pocket"]}')
    assert opened(tmp_path / "data")[0].base == "pocket"


def test_notes_are_printed_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    (tmp_path / "settings.json").write_text('{"base": "gone.safetensors"}')
    served = serve.Served(StudioSettings(data=tmp_path, port=0))
    try:
        assert served.greeting()[0] == "The base chosen in the settings is not there any more; it is pocket again."
    finally:
        served.socket.close()
        served.studio.close()


def test_a_server_without_pages_takes_nothing_from_the_file(tmp_path: Path) -> None:
    base = base_in(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"api": False, "base": base}))
    studio = Studio.open(ServeSettings(data=tmp_path))
    studio.close()
    assert (studio.settings.api, studio.settings.base) == (True, "pocket")
