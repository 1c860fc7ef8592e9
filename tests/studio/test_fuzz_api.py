"""Random requests from the API's own description: no 5xx, nothing outside the data folder, the memory stays flat.

MAQUETTE_FUZZ says how many. They come in shards, each with a server and a seed of its own: `-k "shard3]"` is one.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.studio.process import Process, until
from tests.studio.random_requests import Sender, Wire, damaged, wire_of
from tests.studio.test_jobs import photos_to

pytestmark = pytest.mark.heavy
REQUESTS = int(os.environ.get("MAQUETTE_FUZZ", "3000"))
SHARD = 10_000  # requests
SHARDS = [(number, min(SHARD, REQUESTS - number * SHARD)) for number in range(-(-REQUESTS // SHARD))]
VARIANTS = 8  # requests of a generated case: itself and damaged ones
GROWTH = 50_000_000  # bytes
# What takes a process or many photos each time is asked for a few times only.
COSTLY = {"/api/demo": 4, "/sdapi/v1/unload-checkpoint": 5, "/sdapi/v1/reload-checkpoint": 5, "/api/merge": 20}


def memory(process: Process) -> int:
    return int(psutil.Process(process.process.pid).memory_info().rss)


@pytest.mark.parametrize(("shard", "count"), SHARDS, ids=[f"shard{number}" for number, _ in SHARDS])
def test_random_requests(tmp_path: Path, shard: int, count: int) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    elsewhere = {"HOME": str(outside), "TMPDIR": str(outside), "XDG_CACHE_HOME": str(outside)}
    with Process(data, "--api", MAQUETTE_FAKE="fast", MAQUETTE_FAKE_STEP="0", folder=outside, **elsewhere) as process:
        project = photos_to(process)
        job = process.client.post(f"/api/projects/{project}/jobs", json={}).json()["id"]
        until(process, job, "finished")
        schema = schemathesis.openapi.from_dict(process.get("/api/openapi.json"))
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 80
        sender, before = Sender(process, random.Random(shard)), 0
        share = -(-count // (len(operations) - len(COSTLY)))
        for at, operation in enumerate(operations):
            if at == len(operations) // 4:
                before = memory(process)
            sender.tidy()
            _send(sender, operation, min(share, COSTLY.get(operation.path, share)), shard)
        growth = memory(process) - before
        print(json.dumps({"shard": shard, "requests": sender.count, "growth": growth, "answers": sender.statuses}))
        assert sender.count >= count * 0.9 and growth < GROWTH
        assert process.get("/api/state")["engine"] == "fake"
        assert sender.statuses[200] > count / 20 and sender.statuses[422] > count / 50
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outside"} and not list(outside.iterdir())


def _send(sender: Sender, operation: Any, times: int, shard: int) -> None:
    """So many requests of one operation."""
    wires: list[Wire] = []

    @seed(shard)
    @settings(
        max_examples=-(-times // VARIANTS), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def generated(case: Any) -> None:
        sender.put_ids(case)
        if (wire := wire_of(case, sender.chance)) is not None:
            wires.append(wire)

    generated()
    for number in range(times):
        sender.send(wires[number] if number < len(wires) else damaged(sender.chance.choice(wires), sender.chance))
