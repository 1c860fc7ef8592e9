"""maquette serve: the interfaces for other programs, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from maquette.config.serve import ServeSettings
from maquette.errors import MaquetteError
from maquette.studio.app import PROGRAMS, create_app
from maquette.studio.serve import Served


def test_serves_nothing_but_the_interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    app = create_app(ServeSettings(data=tmp_path), PROGRAMS)
    try:
        paths = app.openapi()["paths"]
        assert "/sdapi/v1/txt2img" in paths and all(
            path.startswith(("/sdapi/v1/", "/v1/", "/controlnet/", "/internal/")) for path in paths
        )
    finally:
        app.state.studio.close()


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="is ended by a signal")
def test_the_command_draws_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maquette", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    env = os.environ | {"MAQUETTE_ENGINE": "fake"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[2].removesuffix("/sdapi/v1")
        body = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}
        answer = httpx.post(f"{address}/sdapi/v1/txt2img", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200 and len(answer.json()["images"]) == 1
        assert httpx.get(f"{address}/play", trust_env=False).status_code in (401, 404)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        server.stdout.close()
    assert not (tmp_path / "data" / "drawing").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("base", "gone.safetensors", "There is no base gone.safetensors"),
        ("bases", "gone", r"There is no folder gone \(--bases\)"), ("loras", ["gone"], r"no folder gone \(--loras\)"),
    ],
)  # fmt: skip
def test_what_is_named_and_not_there_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, says: str
) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaquetteError, match=says):
        Served(ServeSettings.parse({"data": tmp_path / "data", "port": 0, key: value}, "the command line"), PROGRAMS)
    assert not (tmp_path / "data").exists()
