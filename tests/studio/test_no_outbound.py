"""No process of the studio looks for another computer, and a secret of the user's stays where it was."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.studio.process import Process, until
from tests.studio.test_jobs import photos_to

SECRET = "hf_nobodyshalleverreadthisinafile"
# In every process that starts with this folder before others: a line for its begin, and one for each address.
WATCH = """
import json, os, sys

def told(kind, what):
    with open(os.environ["MAQUETTE_WATCHED"], "a") as file:
        file.write(json.dumps([os.getpid(), kind, what]) + "\\n")

def watch(event, given):
    if event == "socket.connect" and not isinstance(given[1], (str, bytes)):
        told("connect", str(given[1][0]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and given[0]:
        told("look up", given[0].decode() if isinstance(given[0], bytes) else str(given[0]))
    elif event == "socket.sendto" and not isinstance(given[1], (str, bytes)):
        told("send", str(given[1][0]))

sys.addaudithook(watch)
told("begin", " ".join(sys.argv))
"""


def local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname())


@pytest.mark.parametrize("engine", ["fake", pytest.param("real", marks=pytest.mark.heavy)])
def test_no_outbound(tmp_path: Path, engine: str) -> None:
    """The server, a training, a description and a drawing, each in its own process."""
    watched, site = tmp_path / "watched.txt", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    paths = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    given = {"PYTHONPATH": paths, "MAQUETTE_WATCHED": str(watched), "HF_TOKEN": SECRET, "MAQUETTE_FAKE": "fast"}
    short = {"steps": 2, "batch_size": 1, "sample_steps": 1, "save_every_steps": 2, "sample_prompts": ["a robot"]}
    with Process(tmp_path / "data", "--api", **given, MAQUETTE_ENGINE=engine) as process:
        project = photos_to(process)
        for asked in ({"settings": short if engine == "real" else {}}, {"kind": "caption"}):
            job = process.client.post(f"/api/projects/{project}/jobs", json=asked).json()["id"]
            until(process, job, "finished")
        pages = [process.client.get(path) for path in ("/", f"/p/{project}/train", "/play", "/ui/settings")]
        assert [answer.status_code for answer in pages] == [200] * 4
        wish = {"prompt": "a robot", "steps": 1, "width": 64, "height": 64}
        drawn = process.client.post("/sdapi/v1/txt2img", json=wish)
        assert drawn.status_code == 200, drawn.text
        told = [*(answer.text for answer in pages), process.client.get("/sdapi/v1/options").text, drawn.text]
    lines = [json.loads(line) for line in watched.read_text().splitlines()]
    assert len({pid for pid, kind, _ in lines if kind == "begin"}) >= 4, "the server, two workers, a drawing process"
    assert [line for line in lines if line[1] != "begin" and not local(line[2])] == []
    assert not any(SECRET in text for text in (*told, *process.told))
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(files) > 10 and [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    """So that the test above can fail."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    watched = tmp_path / "watched.txt"
    given = os.environ | {"PYTHONPATH": str(tmp_path), "MAQUETTE_WATCHED": str(watched)}
    line = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", line], env=given, check=True)
    assert [json.loads(text)[1:] for text in watched.read_text().splitlines()][1:] == [["connect", "127.0.0.1"]]
