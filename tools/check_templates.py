"""Check the printed templates of `maquette fleet templates` by the schemas of those who read them.

    python -m tools.check_templates --kuberay ray.io_rayjobs.yaml   # the definition of KubeRay's operator
    python -m tools.check_templates --skypilot                      # where `pip install skypilot` was done
    python -m tools.check_templates --ray                           # where Ray is installed

Prints a line for each; ends with 1 where one is refused. Nothing of these projects is part of this one.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from maquette.config.fleet import FleetConfig
from maquette.fleet.printing import template

CONFIG = FleetConfig(root="s3://shop/fleet", workers=3)


def printed(name: str) -> Any:
    return yaml.safe_load(template(name, CONFIG))


def strict(schema: Any) -> Any:
    """A structural schema of Kubernetes as JSON Schema that refuses unknown fields, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string") is True:
        made = {key: value for key, value in made.items() if key not in ("type", "anyOf")}
        made["type"] = ["integer", "string"]
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") is True or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made


def kuberay_schema(definition: Path) -> tuple[str, dict[str, Any]]:
    """(version, JSON Schema) of the objects that a CustomResourceDefinition stores."""
    spec = yaml.safe_load(definition.read_text("utf-8"))["spec"]
    version = next(one for one in spec["versions"] if one["storage"])
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return f"{spec['group']}/{version['name']}", schema


def check_kuberay(definition: Path) -> str:
    version, schema = kuberay_schema(definition)
    job = printed("kuberay")
    assert job["apiVersion"] == version, f"apiVersion is {version}"
    jsonschema.validate(job, schema)
    return f"kuberay: valid {version} {job['kind']}"


def check_skypilot() -> str:
    sky, schemas = importlib.import_module("sky"), importlib.import_module("sky.utils.schemas")
    task = printed("skypilot")
    jsonschema.validate(task, {**schemas.get_task_schema(), "additionalProperties": False})
    jsonschema.validate(task["resources"], {**schemas.get_resources_schema(), "additionalProperties": False})
    return f"skypilot: valid for {sky.__version__}"


def check_ray() -> str:
    ray = importlib.import_module("ray")
    schema = json.loads((Path(ray.__file__ or "").parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    jsonschema.validate(printed("ray"), schema)
    return f"ray: valid for {ray.__version__}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kuberay", type=Path, metavar="CRD")
    parser.add_argument("--skypilot", action="store_true")
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args(arguments)
    try:
        for wanted, check in (
            (given.kuberay, lambda: check_kuberay(given.kuberay)), (given.skypilot, check_skypilot),
            (given.ray, check_ray),
        ):  # fmt: skip
            if wanted:
                print(check())
    except jsonschema.ValidationError as error:
        raise SystemExit(f"{'.'.join(map(str, error.absolute_path))}: {error.message[:500]}") from error


if __name__ == "__main__":
    main()
