"""A studio as a process of its own, which tests kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx


class Process:
    """`maquette studio` on a free port, started in `folder`. `client` has the token."""

    def __init__(self, data: Path, *options: str, folder: Path | None = None, **environment: str) -> None:
        variables = os.environ | {"MAQUETTE_ENGINE": "fake"} | environment
        command = [
            sys.executable,
            "-m",
            "maquette",
            "studio",
            "--data",
            str(data),
            "--port",
            "0",
            "--no-browser",
            *options,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=folder
        )
        assert self.process.stdout is not None
        self.told: list[str] = []
        for line in self.process.stdout:
            self.told.append(line)
            if match := re.match(r"Studio: (http://[^/]+)/\?token=(\S+)", line):
                self.address, self.token = match[1], match[2]
                break
        else:
            raise AssertionError("".join(self.told))
        self._reader = threading.Thread(target=self._read, daemon=True)  # a full pipe would hold the server up
        self._reader.start()
        self.client = httpx.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {self.token}"}, timeout=60, trust_env=False
        )

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.told += self.process.stdout

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        """Without any warning."""
        self.process.kill()
        self._over()

    def end(self) -> int:
        """As Ctrl-C does. Returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        self._over()
        return self.process.returncode

    def _over(self) -> None:
        self.process.wait(30)
        self.client.close()
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            for job in self.client.get("/api/jobs").json():
                self.client.delete(f"/api/jobs/{job['id']}")
            self.end()


def until(process: Process, job: str, *states: str, step: int = 0) -> dict[str, Any]:
    """The job once it is in one of the states, as its events tell."""
    with process.client.stream("GET", f"/api/jobs/{job}/events", timeout=60) as stream:
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:") and kind == "status":
                told: dict[str, Any] = httpx.Response(200, text=line[5:]).json()
                if told["state"] in states and told["step"] >= step:
                    return told
    raise AssertionError(f"the job is {told}")
