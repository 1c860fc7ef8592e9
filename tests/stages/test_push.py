"""maquette push, against a local stand-in of the hub."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

import maquette
from maquette.cli.main import main
from maquette.errors import MaquetteError
from maquette.run_folder import RunFolder
from tests.stages.test_runs import make_run


class Hub(ThreadingHTTPServer):
    """Repositories in memory, with the requests that a commit makes: preupload, LFS batch and object, commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"id": "me/disc", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append(path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.refuses:
            return self._answer({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told.get('organization') or 'me'}/{told['name']}"
            hub.made[name] = bool(told.get("private")) or told.get("visibility") == "private"
            return self._answer({"url": f"{hub.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {**f, "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    hub.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
                if told["key"] == "lfsFile":
                    hub.files[told["value"]["path"]] = hub.objects[told["value"]["oid"]]
            return self._answer(
                {"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.url}/me/disc/commit/1", "hookOutput": ""}
            )
        self._answer({}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.objects[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def _answer(self, told: Any, status: int = 200) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", made.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path, "disc", subject="zkw disc", base="hf:some/base")
    told = {"step": 2, "weight": 0.85, "overtrained": [], "reasons": ["Take step 2 at weight 0.85."], "rows": []}
    folder.evaluation.write_text(json.dumps(told))
    folder.final.with_suffix(".json").write_text('{"preferred weight": 0.85}')
    return folder


def test_the_card_is_written_and_nothing_is_sent(run: RunFolder, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["push", str(run.path), "hf:me/disc"])
    assert "Nothing was uploaded. --upload sends" in capsys.readouterr().out
    assert hub.asked == []
    card = (run.path / "hub/README.md").read_text()
    head, _, rest = card.removeprefix("---\n").partition("\n---\n")
    facts = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in head.splitlines())}
    assert facts["base_model"] == "some/base" and facts["instance_prompt"] == "zkw disc"
    assert "lora" in facts["tags"] and facts["license"] == "other"
    assert facts["widget"] == [{"text": "a photo of zkw disc", "output": {"url": "images/0.png"}}]
    for words in (
        "It is best at weight 0.85.",
        "Take step 2 at weight 0.85.",
        "<lora:disc:0.85>",
        "--base hf:some/base --lora-dir .",
        "on 1 photo.",
    ):
        assert words in rest
    assert (run.path / "hub/images/0.png").read_bytes() == (run.samples(2) / "0.png").read_bytes()


def test_the_card_names_a_base_without_the_folders_of_who_trained(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "disc", subject="zkw disc", base="/home/me/sd 15.safetensors")
    card = Path(maquette.push(folder.path, "hf:me/disc").card).read_text()
    assert "--base 'sd 15.safetensors' --lora-dir ." in card and "/home/me" not in card


def test_asked_to_it_uploads_card_pictures_and_the_file_alone(run: RunFolder, hub: Hub) -> None:
    result = maquette.push(run.path, "hf:me/disc", upload=True)
    assert result.url == f"{hub.url}/me/disc" and hub.made == {"me/disc": True}
    assert sorted(hub.files) == ["README.md", "disc.safetensors", "images/0.png"] == sorted(result.files)
    assert hub.files["disc.safetensors"] == run.final.read_bytes()
    assert b"photo" in hub.files["README.md"]
    maquette.push(run.path, "hf:me/disc", upload=True, private=False)
    assert hub.made == {"me/disc": False}


def test_a_refusal_is_one_sentence(run: RunFolder, hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(MaquetteError, match=r"hf:me/disc was not written \(.*401.*\); log in with `hf auth login`"):
        maquette.push(run.path, "hf:me/disc", upload=True)
    assert hub.files == {}


def test_a_hub_that_is_not_reached_is_one_sentence(run: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(MaquetteError, match=r"hf:me/disc was not written.*refused"):
        maquette.push(run.path, "hf:me/disc", upload=True)


def test_what_cannot_be_pushed_is_told(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"'me/disc' is no place on the hub; write hf:owner/name"):
        maquette.push(run.path, "me/disc")
    stopped = make_run(tmp_path, "stopped", finished=False)
    with pytest.raises(MaquetteError, match="has not finished: go on with maquette train --resume"):
        maquette.push(stopped.path, "hf:me/disc")


def test_names_command_nothing_on_the_card(tmp_path: Path, hub: Hub) -> None:
    folder = make_run(tmp_path, "disc", subject='zkw "](x) <script>\n---')
    maquette.push(folder.path, "hf:me/disc")
    card = (folder.path / "hub/README.md").read_text()
    assert "<script>" not in card.partition("\n---\n")[2].partition("## Use")[0]
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize("name", ["hub", "hub/images", "hub/images/0.png", "hub/README.md"])
def test_nothing_is_written_through_a_link(run: RunFolder, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if name.endswith(("png", "md")):
        elsewhere.write_bytes(b"mine")
    else:
        elsewhere.mkdir()
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).symlink_to(elsewhere)
    with pytest.raises(MaquetteError, match=rf"{name} is a link, and a run keeps to its own folder"):
        maquette.push(run.path, "hf:me/disc")
    assert elsewhere.read_bytes() == b"mine" if elsewhere.is_file() else not any(elsewhere.iterdir())


def test_a_renamed_run_is_pushed_with_the_file_that_it_has(run: RunFolder) -> None:
    moved = RunFolder(run.path.rename(run.path.parent / "other"))
    made = maquette.push(moved.path, "hf:me/disc")
    assert f"{run.name}.safetensors" in made.files
    assert not any("other" in name for name in made.files)
    (moved.path / f"{run.name}.safetensors").unlink()
    outside = moved.path.parent / "secret"
    outside.write_text("s")
    (moved.path / f"{run.name}.safetensors").symlink_to(outside)
    with pytest.raises(MaquetteError, match=r"safetensors is a link, and a run keeps to its own folder"):
        maquette.push(moved.path, "hf:me/disc")
