"""Jobs of photos that are no pictures, since the trainer of most tests looks at none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FAKE = "fleet_fakes:FakeTrainer"
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of workers import what the tests do."""
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    """A worker's trainer sets PyTorch's threads for good, which is its process's own elsewhere."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def write_jobs(tmp_path: Path) -> Callable[..., Path]:
    """A function (*rows) -> jobs.jsonl, where a row without photos gets a folder with a file of its own contents."""

    def write(*rows: dict[str, Any], name: str = "jobs.jsonl") -> Path:
        lines = []
        for number, row in enumerate(rows):
            told = {"id": f"job-{number}", "subject": "zkw thing", "steps": 10, **row}
            if "photos" not in told:
                folder = tmp_path / "photos" / str(told["id"])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "a.png").write_bytes(str(told["id"]).encode())
                told["photos"] = str(folder)
            lines.append(json.dumps({key: value for key, value in told.items() if value is not None}))
        file = tmp_path / name
        file.write_text("\n".join(lines) + "\n")
        return file

    return write
