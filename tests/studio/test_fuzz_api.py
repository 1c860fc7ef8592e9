"""Random requests from the API's own description: no 5xx, nothing outside the data folder, the memory stays flat.

MAQUETTE_FUZZ says how many; 100,000 take half an hour.
"""

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.studio.process import Process, until
from tests.studio.test_jobs import photos_to

pytestmark = pytest.mark.heavy
REQUESTS = int(os.environ.get("MAQUETTE_FUZZ", "3000"))
GROWTH = 50_000_000  # bytes
SKIPPED = re.compile(r"/events$")  # a stream without an end


def memory(process: Process) -> int:
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert match is not None
    return int(match[1]) * 1024


class Fuzzer:
    """Sends requests; half of the ids are real ones, so that they reach what lies behind."""

    def __init__(self, process: Process) -> None:
        self.process, self.chance, self.count = process, random.Random(3), 0
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {process.token}"
        self.session.trust_env = False
        self.made: dict[str, str] = {}
        self.statuses: dict[int, int] = {}

    def real(self) -> dict[str, str]:
        """Ids of a project, photo and job that are there."""
        projects = self.process.get("/api/projects")
        project = projects[0]["id"] if projects else photos_to(self.process)
        photos = self.process.get(f"/api/projects/{project}/photos")
        if not photos:
            project = photos_to(self.process)
            photos = self.process.get(f"/api/projects/{project}/photos")
        jobs = self.process.get("/api/jobs")
        found = {"project_id": project, "photo_id": photos[0]["id"]}
        return found | ({"job_id": jobs[0]["id"]} if jobs else {})

    def send(self, case: Any) -> None:
        if self.count % 50 == 0:
            self.made = self.real()
        for name in case.path_parameters or {}:
            if name in self.made and self.chance.random() < 0.5:
                case.path_parameters[name] = self.made[name]
        answer = case.call(base_url=self.process.address, session=self.session, timeout=30, stream=True)
        text = answer.content[:300] if answer.status_code >= 500 else b""
        self.count += 1
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        allowed = answer.status_code < 500 or answer.status_code in (501, 503)  # 503: a job trains, draw later
        assert allowed, (case.method, case.formatted_path, case.body, text)


def test_random_requests(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    with Process(data, "--api", MAQUETTE_FAKE="fast") as process:
        project = photos_to(process)
        job = process.client.post(f"/api/projects/{project}/jobs", json={}).json()["id"]
        until(process, job, "finished")
        schema = schemathesis.openapi.from_dict(process.get("/api/openapi.json"))
        operations = [found.ok() for found in schema.get_all_operations()]
        operations = [one for one in operations if not SKIPPED.search(one.path)]
        assert len(operations) > 50
        fuzzer, each = Fuzzer(process), max(1, REQUESTS // len(operations))
        before = 0
        for at, operation in enumerate(operations):
            if at == len(operations) // 4:
                before = memory(process)
            _send(fuzzer, operation, each)
        assert fuzzer.count >= REQUESTS / 2
        assert process.get("/api/state")["engine"] == "fake"
        assert memory(process) - before < GROWTH
        assert fuzzer.statuses.get(200, 0) > 0 and fuzzer.statuses.get(422, 0) > 0
    assert not list(outside.iterdir()) and {path.name for path in tmp_path.iterdir()} == {"data", "outside"}


def _send(fuzzer: Fuzzer, operation: Any, times: int) -> None:
    @settings(
        max_examples=times, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        fuzzer.send(case)

    send()
