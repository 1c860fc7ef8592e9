"""A server with nothing but the interfaces of other programs, for their tests, and what they are sent."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from maquette.studio import openai, sdapi
from maquette.studio.engine import DrawingEngine


def lora_file(path: Path, **metadata: str) -> Path:
    """A file whose header is that of a LoRA, without numbers."""
    head = json.dumps(
        {
            "__metadata__": metadata,
            "lora_unet_x.lora_down.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        }
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    return path


def app_of(engine: DrawingEngine) -> FastAPI:
    app = FastAPI()
    app.state.studio = SimpleNamespace(engine=engine)
    app.include_router(sdapi.router)
    app.include_router(openai.router)
    return app


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The port that an application is served on."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listens.wait(20)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


def b64(picture: Image.Image) -> str:
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def picture_of(text: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(text)))


RED = b64(Image.new("RGB", (64, 64), "red"))


def drawn(client: TestClient, path: str = "txt2img", **body: Any) -> dict[str, Any]:
    response = client.post(f"/sdapi/v1/{path}", json={"prompt": "a cat", "steps": 2, "seed": 1, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    answer["info"] = json.loads(answer["info"])
    return answer
