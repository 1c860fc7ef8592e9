"""Two nodes of Ray with addresses of their own, whose cable is pulled: python fleet_cable.py ROOT JOBS.

To be run in a network, mount and process namespace of its own (`namespace` says by which command): this one is the
head's, a second one the far node's, and a pair of virtual network cards joins them. What the far node works on when
the cable is pulled is done again here, and then ends there as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet_fakes import FakeTrainer

from maquette.config import TrainConfig
from maquette.events import Cancel, Listener
from maquette.fleet import claiming, driving
from maquette.fleet.trainer import Trained

HERE, THERE = "10.9.0.1", "10.9.0.2"
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
SIZE = ["--num-cpus=1", "--object-store-memory=100000000"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
WAIT = 120.0  # seconds for anything


def namespace() -> list[str]:
    """The command that gives a process namespaces of its own, whose end ends all in them; [] where it may not be."""
    words = ["unshare", "-rnmpf", "--kill-child", "--mount-proc"]
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return []
    return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else []


class CableTrainer(FakeTrainer):
    """Takes no time here; on the far node it waits for the file `release`. Signs of life do not get through."""

    def __init__(self) -> None:
        claiming.BEAT, claiming.LEASE = 3600.0, 1.0
        self.folder = Path(os.environ["FLEET_FOLDER"])

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        if os.environ.get("FLEET_SIDE") == "there":
            (self.folder / "begun").touch()
            wait_for((self.folder / "release").exists)
        return super().train(config, on_event, cancel)


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not true():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.1)


def do(*words: str, **more: str) -> None:
    ended = subprocess.run(words, check=False, capture_output=True, text=True, env={**os.environ, **more})
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ended.stdout}{ended.stderr}")


def lay_cable() -> str:
    """Two network cards that are joined. Returns a process in the far namespace."""
    far = str(subprocess.Popen(["unshare", "-n", "sleep", "1000"]).pid)
    wait_for(lambda: os.readlink(f"/proc/{far}/ns/net") != os.readlink("/proc/self/ns/net"))
    do("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", far)
    inside = ["nsenter", "-t", far, "-n"]
    for words, card, address in (([], "near", HERE), (inside, "far", THERE)):
        do(*words, "ip", "address", "add", f"{address}/24", "dev", card)
        do(*words, "ip", "link", "set", card, "up")
        do(*words, "ip", "link", "set", "lo", "up")
    return far


def attempts(root: Path) -> int:
    return len(list(root.glob("runs/*/*/*/attempts/*")))


def main() -> None:
    root, jobs = Path(sys.argv[1]), Path(sys.argv[2])
    folder = Path(os.environ["FLEET_FOLDER"])
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # there is nothing here but the two nodes
    os.environ["RAY_AUTH_MODE"] = "disabled"
    far = lay_cable()
    health = f"--system-config={json.dumps(HEALTH)}"
    do(*RAY, "start", "--head", f"--node-ip-address={HERE}", "--port=6379", "--include-dashboard=false", health, *SIZE)
    near = ["nsenter", "-t", far, "-n"]
    do(*near, *RAY, "start", f"--address={HERE}:6379", f"--node-ip-address={THERE}", *SIZE, FLEET_SIDE="there")

    import ray

    from maquette.config.fleet import FleetConfig
    from maquette.fleet.on_ray import RayExecutor
    from maquette.fleet.records import Outcome

    ray.init(f"{HERE}:6379", _node_ip_address=HERE, log_to_driver=False, logging_level="error")

    class Pulled(RayExecutor):
        """Pulls the cable once the far node works."""

        pulled = False

        def wait(self, timeout: float) -> list[Outcome]:
            if not self.pulled and (folder / "begun").exists():
                self.pulled = True
                do("ip", "link", "set", "near", "down")
            return super().wait(min(timeout, 0.2))

    executor: Any = Pulled("auto", 2, "fleet_cable:CableTrainer")
    wait_for(lambda: bool(executor.wait(0.2) or all(actor.ready for actor in executor.actors)))
    ended = driving.run(FleetConfig(jobs=jobs, root=str(root)), executor=executor)
    before = attempts(root)
    (folder / "release").touch()
    wait_for(lambda: attempts(root) < before)
    after = attempts(root)
    do("ip", "link", "set", "near", "up")
    time.sleep(5)  # in which the far node learns that it was given up
    told = {"pulled": executor.pulled, "done": ended.done, "attempts": ended.attempts, "before": before, "after": after}
    print(json.dumps({**told, "restored": attempts(root)}), flush=True)
    os._exit(0)  # which ends all that was begun here


if __name__ == "__main__":
    main()
