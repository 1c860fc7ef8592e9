"""Replicas of Ray Serve behind A1111's interface: they draw what one process draws, several at once."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from maquette.config.serve import ServeSettings
from maquette.errors import MaquetteError
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
from tests.sampling.random_loras import write_lora
from tests.studio.serving import app_of, served

WISH = {"prompt": "a photo of a red robot <lora:robot:0.8>", "steps": 3, "width": 64, "height": 64, "cfg_scale": 4}


def test_more_than_one_replica_needs_ray_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from maquette.studio.replicas import ReplicaEngine

    monkeypatch.setitem(sys.modules, "ray.serve", None)  # which makes its import fail
    with pytest.raises(MaquetteError, match=r"Replicas need Ray Serve: pip install 'maquette-lora\[serve\]'"):
        ReplicaEngine(Library([], []), tmp_path, 2, fake=True)


def test_replicas_are_counted() -> None:
    with pytest.raises(MaquetteError, match="replicas = 0"):
        ServeSettings.parse({"replicas": 0})
    assert ServeSettings.parse({}).replicas == 1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    from maquette import families

    folder = tmp_path_factory.mktemp("replicas")
    (folder / "loras").mkdir()
    write_lora(families.load("pocket"), folder / "loras" / "robot.safetensors")
    return Library([folder / "bases"], [folder / "loras"])


@pytest.fixture(scope="module")
def replicas(library: Library) -> Iterator[DrawingEngine]:
    """Two, on a cluster of their own, whose sockets allow no long names."""
    pytest.importorskip("ray.serve")
    from maquette.studio.replicas import ReplicaEngine

    folder = Path(tempfile.mkdtemp(prefix="mq", dir="/tmp"))
    os.environ["RAY_TMPDIR"] = str(folder)
    made = ReplicaEngine(library, folder / "data", 2, fake=False)
    yield made
    made.close()
    del os.environ["RAY_TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)


def asked(port: int, what: str, **wish: Any) -> Any:
    """The picture that a server gives, as bytes; what it says where it gives none."""
    address = f"http://127.0.0.1:{port}/sdapi/v1/{what}"
    answer = httpx.post(address, json={**WISH, **wish}, timeout=300, trust_env=False).json()
    return base64.b64decode(answer["images"][0]) if "images" in answer else answer


@pytest.mark.heavy
def test_replicas_draw_what_a_process_draws(replicas: DrawingEngine, library: Library, tmp_path: Path) -> None:
    """Four at once by A1111's interface, with a LoRA, and from a picture."""
    process = DrawingEngine(library, tmp_path / "data", fake=False)
    found: dict[int, bytes] = {}
    with contextlib.closing(process), served(app_of(replicas)) as port, served(app_of(process)) as other:
        threads = [
            threading.Thread(target=lambda n: found.update({n: asked(port, "txt2img", seed=n)}), args=(seed,))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (
            found == {seed: asked(other, "txt2img", seed=seed) for seed in range(4)} and len(set(found.values())) == 4
        )
        begun = {"seed": 9, "init_images": [base64.b64encode(found[0]).decode()], "denoising_strength": 0.5}
        assert asked(port, "img2img", **begun) == asked(other, "img2img", **begun)
        begun["init_images"] = [base64.b64encode(b"no picture").decode()]
        assert asked(port, "img2img", **begun) == asked(other, "img2img", **begun)


@pytest.mark.heavy
def test_drawings_in_replicas_are_interrupted(replicas: DrawingEngine) -> None:
    def stop(progress: Any) -> None:
        if progress.step == 2:
            replicas.interrupt()

    drawn = replicas.draw({**WISH, "steps": 60, "seed": 1}, stop)
    assert drawn.interrupted and len(drawn.pictures) <= 1
    assert not replicas.draw({**WISH, "seed": 1}).interrupted
