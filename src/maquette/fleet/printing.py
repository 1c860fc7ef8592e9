"""`maquette fleet templates`: files for Ray's launcher, KubeRay, SkyPilot and Slurm, to print and to fill in."""

from __future__ import annotations

from pathlib import Path

from ..config.fleet import FleetConfig
from ..errors import MaquetteError

FILES = {"ray": "ray.yaml", "kuberay": "kuberay.yaml", "skypilot": "skypilot.yaml", "slurm": "slurm.sh"}
IMAGE = "registry.example.org/maquette:latest"


def template(name: str, config: FleetConfig) -> str:
    """The text of a file with the root and the number of workers. Raises MaquetteError for an unknown name."""
    if name not in FILES:
        raise MaquetteError(f"There is no template {name!r}; choose {', '.join(FILES)}.")
    text = (Path(__file__).parent / "templates" / FILES[name]).read_text(encoding="utf-8")
    for word, value in (("@ROOT@", config.root), ("@WORKERS@", str(config.workers)), ("@IMAGE@", IMAGE)):
        text = text.replace(word, value)
    return text
