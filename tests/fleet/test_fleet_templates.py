"""Printed templates against the rules of those who read them: Ray's own schema, and what KubeRay, SkyPilot and Slurm
ask for.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from maquette.cli.main import main
from maquette.config.fleet import FleetConfig
from maquette.errors import MaquetteError
from maquette.fleet.printing import FILES, template

CONFIG = FleetConfig(root="s3://shop/fleet", workers=3)
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {
    "type": "object", "required": ["spec"],
    "properties": {"spec": {"type": "object", "required": ["containers"], "properties": {"containers": {
        "type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["name", "image", "resources"],
            "properties": {"resources": {"type": "object", "properties": {"limits": TEXTS, "requests": TEXTS}}},
        },
    }}}},
}  # fmt: skip
HEAD = {
    "type": "object", "additionalProperties": False, "required": ["rayStartParams", "template"],
    "properties": {"rayStartParams": TEXTS, "template": POD},
}  # fmt: skip
WORKERS = {
    "type": "object", "additionalProperties": False, "required": ["groupName", "rayStartParams", "template"],
    "properties": {
        "groupName": {"type": "string"}, "replicas": {"type": "integer"}, "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"}, "rayStartParams": TEXTS, "template": POD,
    },
}  # fmt: skip
RAY_JOB = {
    "type": "object", "additionalProperties": False, "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"}, "kind": {"const": "RayJob"}, "metadata": {"required": ["name"]},
        "spec": {
            "type": "object", "additionalProperties": False, "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"}, "backoffLimit": {"type": "integer"},
                "shutdownAfterJobFinishes": {"type": "boolean"}, "ttlSecondsAfterFinished": {"type": "integer"},
                "rayClusterSpec": {
                    "type": "object", "additionalProperties": False, "required": ["headGroupSpec", "workerGroupSpecs"],
                    "properties": {
                        "authOptions": {"properties": {"mode": {"enum": ["token", "disabled"]}}},
                        "headGroupSpec": HEAD, "workerGroupSpecs": {"type": "array", "items": WORKERS},
                    },
                },
            },
        },
    },
}  # fmt: skip
SKY_TASK = {
    "type": "object", "additionalProperties": False, "required": ["run"],
    "properties": {
        "name": {"type": "string"}, "num_nodes": {"type": "integer"}, "setup": {"type": "string"},
        "run": {"type": "string"}, "secrets": {"additionalProperties": {"type": ["string", "null"]}},
        "resources": {"type": "object", "additionalProperties": False, "properties": {
            "accelerators": {"type": "object"}, "use_spot": {"type": "boolean"}, "disk_size": {"type": "integer"},
        }},
    },
}  # fmt: skip


def schema_of_ray() -> dict[str, Any]:
    ray = pytest.importorskip("ray")
    found: dict[str, Any] = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    return found


def test_yaml_is_what_its_reader_asks_for() -> None:
    for name, schema in (("ray", schema_of_ray()), ("kuberay", RAY_JOB), ("skypilot", SKY_TASK)):
        jsonschema.validate(yaml.safe_load(template(name, CONFIG)), schema)


def test_schemas_refuse_what_is_wrong() -> None:
    job = yaml.safe_load(template("kuberay", CONFIG))
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0  # KubeRay takes texts only
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


def test_kubernetes_quantities() -> None:
    job = yaml.safe_load(template("kuberay", CONFIG))
    spec = job["spec"]["rayClusterSpec"]
    assert [group["replicas"] for group in spec["workerGroupSpecs"]] == [3]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            for amount in container["resources"]["limits"].values():
                assert re.fullmatch(r"[0-9]+(Gi)?", amount)


def test_slurm_options_and_shell() -> None:
    text = template("slurm", CONFIG)
    options = re.findall(r"^#SBATCH (--[a-z-]+)(?:=(\S+))?$", text, re.MULTILINE)
    assert ("--nodes", "3") in options and text.count("#SBATCH") == len(options)
    known = {"--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal",
             "--requeue"}  # fmt: skip
    assert {name for name, _ in options} == known
    shell = shutil.which("bash")
    if shell:
        for script in (text, yaml.safe_load(template("skypilot", CONFIG))["run"]):
            assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).stderr == ""


@pytest.mark.parametrize("name", FILES)
def test_templates_name_root_and_workers_and_are_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fleet", "templates", name, "--root", "s3://shop/fleet", "--workers", "3"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and printed == template(name, CONFIG)
    assert "maquette fleet run --root s3://shop/fleet --address auto --workers 3" in printed
    assert not re.search("@[A-Z]+@", printed)


@pytest.mark.parametrize("root", ["/shared/my fleet's", 'a: b #"$(id)"', "@WORKERS@"])
@pytest.mark.parametrize("name", FILES)
def test_a_root_of_whatever_name_is_one_word_of_the_shell(name: str, root: str) -> None:
    text = template(name, CONFIG.model_copy(update={"root": root}))
    if name == "kuberay":
        run = yaml.safe_load(text)["spec"]["entrypoint"]
    elif name == "ray":
        line = next(line for line in text.splitlines() if "ray exec" in line)
        run = shlex.split(line.removeprefix("#"))[-1]
    else:
        script = yaml.safe_load(text)["run"] if name == "skypilot" else text
        run = next(line for line in script.splitlines() if "fleet run" in line)
    words = shlex.split(run)
    assert words[words.index("--root") + 1] == root
    if name != "slurm":
        yaml.safe_load(text)


def test_a_root_that_would_break_a_line() -> None:
    with pytest.raises(MaquetteError, match="no root for a template"):
        template("slurm", CONFIG.model_copy(update={"root": "a\nrm -r b"}))


def test_an_unknown_template() -> None:
    with pytest.raises(MaquetteError, match="no template 'nomad'; choose ray, kuberay, skypilot, slurm"):
        template("nomad", CONFIG)
