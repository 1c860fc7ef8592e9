"""Two nodes of Ray on one machine, one of which is killed while it works: python fleet_nodes.py ROOT JOBS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from maquette.config.fleet import FleetConfig
from maquette.fleet import driving
from maquette.fleet.on_ray import RayExecutor
from maquette.fleet.records import Outcome

HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}


def main() -> None:
    root, jobs = sys.argv[1:]
    head = {**NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    ray.init(cluster.address, log_to_driver=False, logging_level="error")

    class Killing(RayExecutor):
        killed = 0

        def wait(self, timeout: float) -> list[Outcome]:
            found = super().wait(timeout)
            busy = {json.loads(claim.read_bytes())["node"] for claim in Path(root).rglob("claim.json")}
            if not self.killed and nodes[0].node_id in busy:
                self.killed = Killing.killed = 1
                cluster.remove_node(nodes[0], allow_graceful=False)
            return found

    config = FleetConfig.parse({"root": root, "jobs": jobs})
    ended = driving.run(config, executor=Killing("auto", 2, "fleet_fakes:FakeTrainer"))
    print(json.dumps({"done": ended.done, "attempts": ended.attempts, "killed": Killing.killed}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
