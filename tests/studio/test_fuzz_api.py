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
ROUNDS = 5  # over all operations; the memory after the first is compared with that after the last
SHARDS = [(number, min(SHARD, REQUESTS - number * SHARD)) for number in range(-(-REQUESTS // SHARD))]
VARIANTS = 8  # requests of a generated case: itself and damaged ones
GROWTH = 30_000_000  # bytes
# What takes a process or many photos each time is asked for this often in a round.
COSTLY = {"/api/demo": 1, "/sdapi/v1/unload-checkpoint": 2, "/sdapi/v1/reload-checkpoint": 2, "/api/merge": 5}


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
        sender, sizes = Sender(process, random.Random(shard)), list[int]()
        share = -(-count // ROUNDS // (len(operations) - len(COSTLY)))
        for number in range(ROUNDS):
            for operation in operations:
                sender.tidy()
                times = min(share, COSTLY.get(operation.path, share))
                _send(sender, operation, times, shard * ROUNDS + number)
            sizes.append(memory(process))
        print(json.dumps({"shard": shard, "requests": sender.count, "memory": sizes, "answers": sender.statuses}))
        assert sender.count >= count * 0.9 and sizes[-1] - sizes[0] < GROWTH
        assert process.get("/api/state")["engine"] == "fake"
        assert sender.statuses[200] > count / 20 and sender.statuses[422] > count / 50
    assert "Traceback" not in (told := "".join(process.told)), told
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outside"} and not list(outside.iterdir())


def _send(sender: Sender, operation: Any, times: int, chance: int) -> None:
    """So many requests of one operation."""
    wires: list[Wire] = []

    @seed(chance)
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
