"""Two nodes of Ray on one machine that are killed while they work: python fleet_nodes.py ROOT JOBS once|every.

once: one of them, as soon as it works on something. every: each node in turn, by its worker, at the next point at
which that writes (fleet_crashes); another node takes its place.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from maquette.config.fleet import FleetConfig
from maquette.fleet import driving, failures
from maquette.fleet.on_ray import RayExecutor
from maquette.fleet.records import Outcome

HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}


def main() -> None:
    root, jobs, how = sys.argv[1:]
    head = {**NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    ray.init(cluster.address, log_to_driver=False, logging_level="error")

    class Once(RayExecutor):
        killed = 0

        def wait(self, timeout: float) -> list[Outcome]:
            found = super().wait(timeout)
            busy = {json.loads(claim.read_bytes())["node"] for claim in Path(root).rglob("claim.json")}
            if not self.killed and nodes[0].node_id in busy:
                self.killed = Once.killed = 1
                cluster.remove_node(nodes[0], allow_graceful=False)
            return found

    class Every(RayExecutor):
        killed = 0

        def wait(self, timeout: float) -> list[Outcome]:
            dead = len(os.listdir(os.environ["FLEET_POINTS"]))
            while Every.killed < dead:
                Every.killed += 1
                cluster.add_node(**NODE)
            return super().wait(timeout)

    config = FleetConfig.parse({"root": root, "jobs": jobs, "attempts": 100})
    if how == "once":
        executor: Any = Once("auto", 2, "fleet_fakes:FakeTrainer")
    else:
        failures.KILLS = failures.KILLS_HERE = 1000
        executor = Every("auto", 1, "fleet_crashes:CrashingTrainer")
    ended = driving.run(config, executor=executor)
    told = {"done": ended.done, "known": ended.known, "attempts": ended.attempts, "killed": type(executor).killed}
    print(json.dumps(told), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
