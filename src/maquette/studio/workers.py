"""Processes of jobs, as the server starts and ends them: each is a session of its own, which outlives the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from ..stages.captioners import MODELS, models_folder
from .job import Job, started
from .names import Busy

MODULE = "maquette.studio.worker"
LOOKS, PAUSE = 100, 0.05  # how often, and seconds between looks at a process that was killed


class Child:
    """The worker that this server has started."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes], began: float | None) -> None:
        """began: when the job had last begun before."""
        self.job, self._process, self._began = job, process, began

    @classmethod
    def start(cls, job: Job) -> Child | None:
        """Start a job's worker; None where the system has none to give, which the job then says."""
        began = job.status().get("began")  # before its worker can change it
        log = job.log.open("ab")
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(job.path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=job.path, env=_environment(),
            )  # fmt: skip
        except OSError as error:
            job.enter("failed", message=f"The job could not be started: {error.strerror or error}.", remedy="resume")
            return None
        finally:
            log.close()
        return cls(job, process, began)

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def require_begun(self) -> None:
        """After its end: a job that it never began has failed, or it would be started for ever."""
        if not self.job.path.exists():
            return
        status = self.job.status()
        if status["state"] == "queued" and status.get("began") == self._began and not self.job.alive():
            message = "The job's process could not begin; its log says why."
            self.job.enter("failed", message=message, remedy="resume")


def end(job: Job) -> None:
    """Kill a job's worker, whichever server has started it, and wait for its end. Raises Busy where it lives on."""
    for _ in range(LOOKS):
        if not job.alive():
            return
        status = job.status()
        pid = status.get("pid")
        if isinstance(pid, int) and started(pid) == status.get("started"):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        time.sleep(PAUSE)
    raise Busy("The job's process does not end; try again in a moment.")


def _environment() -> dict[str, str]:
    """A worker's: latents of photos lie in the job's folder and go with it, wherever the user keeps those of others.
    Weights of captioners are where they are for this process, whose folder is another.
    """
    kept = {key: value for key, value in os.environ.items() if key != "MAQUETTE_CACHE"}
    return kept | {MODELS: str(models_folder().absolute())}
