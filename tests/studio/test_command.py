"""`maquette studio` as a command: its address, ports, second instances, and docs that name every route."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from maquette.cli.main import main
from maquette.config.studio import PASSWORD_VARIABLE, StudioSettings
from maquette.errors import MaquetteError
from maquette.studio import serve
from maquette.studio.serve import Served, bind

ROOT = Path(__file__).parent.parent.parent


def test_a_taken_port_becomes_the_next_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = Served(StudioSettings(data=tmp_path, port=port))
        try:
            assert served.port > port
            told = served.greeting()
            assert told[0] == f"Port {port} is taken (A1111 uses 7860 too); the studio has {served.port}."
            assert told[1] == f"Studio: {served.url}" and served.studio.token in served.url
            assert told[2] == f"Everything lies in {tmp_path}. Ctrl-C ends it; jobs go on."
        finally:
            served.socket.close()
            served.studio.close()


def test_answers_do_not_wait_for_an_acknowledgement(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body of an answer are two packets; without TCP_NODELAY the second comes 40 ms later."""
    seen: list[int] = []
    made = asyncio.selector_events._SelectorSocketTransport.__init__  # type: ignore[attr-defined]

    def watched(self: Any, loop: Any, sock: socket.socket, *rest: Any, **named: Any) -> None:
        made(self, loop, sock, *rest, **named)
        if sock.getsockname()[1] == studio.served.port:
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "__init__", watched)  # type: ignore[attr-defined]
    assert studio.client.get("/api/state").status_code == 200
    assert seen and all(seen)


def test_connections_outlive_the_pauses_of_clients(studio: Any) -> None:
    """With uvicorn's own five seconds, one that asks every five would now and then find it closed as it asks."""
    assert studio.served.server.config.timeout_keep_alive > 60


def test_no_port_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "TRIES", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"No port from {port} to {port} is free; give another with --port."):
            bind(StudioSettings(port=port))


def test_a_second_instance_ends_with_one_sentence(studio: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["studio", "--data", str(studio.studio.folder), "--no-browser", "--port", "0"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"error: Another studio works in {studio.studio.folder} already: use its page, end it first, or choose another "
        "folder with --data.\n"
    )


def test_a_data_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["studio", "--data", str(tmp_path / "file"), "--no-browser", "--port", "0"])
    assert "cannot be used: File exists; choose another with --data." in capsys.readouterr().err


def test_lan_without_password_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["studio", "--lan", "--no-browser"])
    assert (
        "lan lets other computers in: give a password (--password) of 8 characters or more, or set MAQUETTE_PASSWORD "
        "in the environment"
    ) in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["studio", "serve"])
def test_the_password_of_the_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both commands take it where none is given; the command line's wins; a short one is refused, and not shown."""
    given: list[StudioSettings] = []

    class Stopped(serve.Served):
        def __init__(self, settings: StudioSettings, *rest: Any) -> None:
            given.append(settings)
            raise MaquetteError("not in this test")

    monkeypatch.setattr(serve, "Served", Stopped)
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    for words in ([], ["--password", "of the command line"]):
        with pytest.raises(SystemExit):
            main([name, "--lan", "--data", str(tmp_path), *words])
    assert [settings.password for settings in given] == ["of the environment", "of the command line"]
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([name, "--lan"])
    assert "give a password" in capsys.readouterr().err
    monkeypatch.setenv(PASSWORD_VARIABLE, "zkw4711")
    with pytest.raises(SystemExit):
        main([name, "--lan"])
    told = capsys.readouterr().err
    assert "at least 8 characters" in told and "zkw4711" not in told
    assert len(given) == 2


def test_the_docs_name_every_route(studio: Any) -> None:
    text = (ROOT / "docs" / "studio-api.md").read_text("utf-8")
    for path, operations in studio.client.get("/api/openapi.json").json()["paths"].items():
        if not path.startswith("/api/"):
            continue
        for method in operations:
            rows = [line for line in text.splitlines() if f"{path}`" in line]
            assert any(re.search(rf"\b{method.upper()}\b", row) for row in rows), f"{method.upper()} {path}"


def test_make_studio() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert "\nstudio: $(READY)\n\t$(BIN)/python -m maquette studio\n" in text
