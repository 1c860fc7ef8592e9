"""Templates against their readers' own schemas: a definition as KubeRay's is made into a strict schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tools import check_templates


def definition(folder: Path, **fields: Any) -> Path:
    """A CustomResourceDefinition whose objects have these fields in their spec."""
    spec = {"type": "object", "properties": fields}
    root = {"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec,
    }}  # fmt: skip
    versions = [
        {"name": "v1alpha1", "storage": False, "schema": {"openAPIV3Schema": {}}},
        {"name": "v1", "storage": True, "schema": {"openAPIV3Schema": root}},
    ]
    file = folder / "crd.yaml"
    file.write_text(yaml.safe_dump({"spec": {"group": "ray.io", "versions": versions}}))
    return file


def test_unknown_fields_are_refused_and_quantities_are_numbers_or_texts(tmp_path: Path) -> None:
    quantity = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    limits = {"type": "object", "additionalProperties": quantity}
    free = {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True}
    version, schema = check_templates.kuberay_schema(definition(tmp_path, limits=limits, free=free))
    assert version == "ray.io/v1"
    good: dict[str, Any] = {"kind": "RayJob", "spec": {"limits": {"cpu": 2, "memory": "8Gi"}, "free": {"any": 1}}}
    jsonschema.validate(good, schema)
    for wrong in ({"spec": {"limit": {}}}, {"spec": {"limits": {"cpu": [2]}}}, {"specs": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_template_that_is_refused_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"spec: Additional properties are not allowed .*'rayClusterSpec'"):
        check_templates.main(["--kuberay", str(definition(tmp_path, entrypoint={"type": "string"}))])
    pytest.importorskip("ray")
    check_templates.main(["--ray"])
    assert capsys.readouterr().out.startswith("ray: valid for 2.")
