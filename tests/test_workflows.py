"""What runs elsewhere: workflows, templates and hooks are well formed and name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parent.parent
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def steps() -> list[dict[str, Any]]:
    jobs = read(ROOT / ".github" / "workflows" / "checks.yml")["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_workflows_call_what_exists() -> None:
    lines = [line for step in steps() for line in str(step.get("run", "")).splitlines()]
    called = {match[1] for line in lines if (match := re.match(r"make (?:PYTHON=\S+ )?([\w-]+)$", line.strip()))}
    assert called == {"lint", "test", "coverage", "docs"} and called <= TARGETS
    named = [word for line in lines for word in line.split() if word.startswith("tests/")]
    assert named and [word for word in named if not (ROOT / word).exists()] == []


def test_every_python_that_is_promised_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = {word.rpartition(" ")[2] for word in project["classifiers"] if re.search(r":: 3\.\d+$", word)}
    jobs = read(ROOT / ".github" / "workflows" / "checks.yml")["jobs"]
    assert set(jobs["tests"]["strategy"]["matrix"]["python"]) == promised == {"3.11", "3.12", "3.13", "3.14"}
    assert set(jobs["other-systems"]["strategy"]["matrix"]["os"]) == {"macos-latest", "windows-latest"}


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name)
def test_issue_forms_have_what_github_asks_for(form: Path) -> None:
    content = read(form)
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"] and content["description"]
    ids = [part["id"] for part in content["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["type"] in ("textarea", "input") and part["attributes"]["label"] for part in content["body"])


def test_hooks_are_the_tools_of_the_environment() -> None:
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    own = {hook["id"]: hook["entry"] for hook in hooks if "entry" in hook}
    assert {"ruff", "format", "mypy", "architecture"} == own.keys()
    assert all(entry.startswith(".venv/bin/") for entry in own.values())
    named = [word for word in own["architecture"].split() if word.startswith("tests/")]
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_the_citation_is_well_formed() -> None:
    content = read(ROOT / "CITATION.cff")
    assert content["cff-version"] == "1.2.0" and content["type"] == "software" and content["license"] == "Apache-2.0"
    assert {"title", "message", "authors", "version", "date-released"} <= content.keys()
