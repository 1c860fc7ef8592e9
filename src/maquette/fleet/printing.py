"""`maquette fleet templates`: files for Ray's launcher, KubeRay, SkyPilot and Slurm, to print and to fill in."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from ..config.fleet import FleetConfig
from ..errors import MaquetteError

FILES = {"ray": "ray.yaml", "kuberay": "kuberay.yaml", "skypilot": "skypilot.yaml", "slurm": "slurm.sh"}
IMAGE = "registry.example.org/maquette:latest"


def template(name: str, config: FleetConfig) -> str:
    """The text of a file with the root and the number of workers. Raises MaquetteError for an unknown name, and for a
    root with a line break.
    """
    if name not in FILES:
        raise MaquetteError(f"There is no template {name!r}; choose {', '.join(FILES)}.")
    if not config.root.isprintable():
        raise MaquetteError(
            f"{config.root!r} is no root for a template: it has a line break, or what cannot be printed."
        )
    text = (Path(__file__).parent / "templates" / FILES[name]).read_text(encoding="utf-8")
    root, workers = shlex.quote(config.root), str(config.workers)
    command = f"maquette fleet run --root {root} --address auto --workers {workers}"
    words = {
        "@IMAGE@": IMAGE, "@WORKERS@": workers, "@RUN@": _scalar(command), "@ROOT@": root,
        "@EXEC@": shlex.quote(f"RAY_AUTH_MODE=token {command}"),
    }  # fmt: skip
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _scalar(text: str) -> str:
    """A text as YAML reads it: plain where it may be, else in quotes, which JSON's are."""
    return text if re.fullmatch(r"[\w ./:=@%+-]+", text) and ": " not in text else json.dumps(text, ensure_ascii=False)
