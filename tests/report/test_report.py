"""report.html: the loss curve, and a page in which nothing of a stranger's becomes markup."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from maquette.errors import MaquetteError
from maquette.report.pages import policy_of, render
from maquette.report.run_page import _dataset, loss_curve
from maquette.run_folder import RunFolder

SCRIPT = "<script>document.title='XSSRAN'</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b\u202e\ud800"


def points(values: list[tuple[int, float]]) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in loss_curve(values)["points"].split()]  # type: ignore[misc]


def test_loss_curve_runs_left_to_right_and_falls_with_the_loss() -> None:
    line = points([(step, 1.0 - step / 100) for step in range(1, 51)])
    xs, ys = [p[0] for p in line], [p[1] for p in line]
    assert xs == sorted(xs) and ys == sorted(ys) and len(line) == 50


def test_one_spike_does_not_flatten_the_curve_and_infinities_are_left_out() -> None:
    values = [(step, 0.1) for step in range(300)]
    values[150] = (150, 1000.0)
    values[151] = (151, float("inf"))
    line = points(values)
    assert len(line) == 299
    assert max(y for _, y in line) < 60  # 0.1 stands near the top of the axis, not at its foot


def test_too_short_for_a_curve() -> None:
    assert loss_curve([(1, 0.5)]) == {}


def test_the_running_mean_is_of_a_twentieth_of_the_run() -> None:
    curve = loss_curve([(step, float(step % 2)) for step in range(100)])
    ys = [float(pair.split(",")[1]) for pair in curve["means"].split()]
    assert len(ys) == 100 and max(ys[10:]) - min(ys[10:]) < 50  # of five losses two or three are 1


KNOWN = [
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "table",
    "tr",
    "th",
    "td",
    "div",
    "img",
    "p",
    "pre",
    "ul",
    "li",
    "svg",
    "path",
    "text",
    "polyline",
    "rect",
    "circle",
    "span",
    "figure",
    "figcaption",
    "details",
    "summary",
]


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.tags.add(tag)
        self.attributes |= set(told)
        self.sources += [str(told[key]) for key in ("src", "href") if key in told]
        if told.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(told["content"])


def hostile_verdict() -> dict[str, Any]:
    curve = dict.fromkeys(("title", "points", "limit", "chosen", "first", "last", "axes"), SCRIPT)
    cell = {"share": SCRIPT, "level": 9, "chosen": True, "same": True, "wrong": SCRIPT}
    return {
        "unit": SCRIPT,
        "step": SCRIPT,
        "weight": SCRIPT,
        "summary": SCRIPT,
        "reasons": [SCRIPT],
        "prefer": SCRIPT,
        "map": {"weights": [SCRIPT], "lines": [{"step": SCRIPT, "cells": [cell, None]}]},
        "curves": [
            curve
            | {"noise": None, "window": (SCRIPT, SCRIPT), "ticks": [(SCRIPT, SCRIPT)], "dots": [(SCRIPT, SCRIPT)]}
            | {"width": 320, "height": 150}
        ],
        "pairs": [{"prompt": SCRIPT, "drawn": "AAAA", "photo": "AAAA", "like": "AAAA", "name": SCRIPT, "copied": True}],
        "held": [SCRIPT],
        "hard": [{"name": SCRIPT, "caption": SCRIPT, "picture": "AAAA", "times": SCRIPT}],
        "noisy": False,
        "encoders": {"heads": [SCRIPT], "rows": [(SCRIPT, [SCRIPT])]},
        "figures": [(SCRIPT, [SCRIPT])],
    }


def hostile_report() -> str:
    photo = dict.fromkeys(("name", "repeats", "caption"), SCRIPT) | {"size": [SCRIPT, SCRIPT], "bucket": [SCRIPT, 1]}
    return render(
        "report.html",
        style="p { color: red }",
        title=SCRIPT,
        facts=[(SCRIPT, SCRIPT)],
        verdict=hostile_verdict(),
        grid={"heads": [(SCRIPT, True)], "rows": [(SCRIPT, [("AAAA", True)])]},
        curve=loss_curve([(1, 0.5), (2, 0.4)]) | {"axes": SCRIPT, "points": SCRIPT},
        commands=SCRIPT,
        left_out=[SCRIPT],
        photos=[photo],
    )


def hostile_check() -> str:
    problem = {"blocking": False, "left_out": True, "message": SCRIPT}
    photo = dict.fromkeys(("data", "width", "height", "style", "name", "caption", "facts"), SCRIPT)
    told = {"title": SCRIPT, "figures": [SCRIPT], "rule": [SCRIPT], "problems": [problem], "more": 0}
    return render("check.html", style="p { color: red }", photos=[photo | {"messages": [SCRIPT]}], **told)


@pytest.mark.parametrize("page", [hostile_report(), hostile_check()], ids=["report", "check"])
def test_nothing_of_a_stranger_becomes_markup(page: str) -> None:
    seen = Seen()
    seen.feed(page)
    assert not seen.tags - set(KNOWN)
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert all(source.startswith("data:image/") for source in seen.sources)
    assert page.count("XSSRAN") > 8 and "{{ 7 * 7 }}" in page and "<title>&lt;script&gt;" in page
    assert not {"\x1b", "\u202e", "\ud800"} & set(page) and r"\x1b\u202e\ud800" in page


@pytest.mark.parametrize("page", [hostile_report(), hostile_check()], ids=["report", "check"])
def test_the_browser_is_told_to_run_and_load_nothing(page: str) -> None:
    seen = Seen()
    seen.feed(page)
    assert seen.policy == policy_of("p { color: red }")
    assert seen.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script-src" not in seen.policy and "unsafe" not in seen.policy
    assert "style" not in seen.attributes  # which this policy would not allow
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_pages_are_made_from_templates_alone() -> None:
    """No Python of the package writes HTML, where a value could be forgotten to be escaped."""
    source = Path(__file__).parent.parent.parent / "src" / "maquette"
    texts = {path.name: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    assert [
        name for name, text in texts.items() if any(tag in text for tag in ("</td>", "</p>", "</h1>", "<svg"))
    ] == []
    templates = [path.read_text(encoding="utf-8") for path in (source / "report" / "pages").iterdir() if path.is_file()]
    assert not any("|safe" in text.replace(" ", "") or "autoescape false" in text for text in templates)


@pytest.mark.parametrize(
    "damage",
    [
        {"photos": 7},
        {"photos": [7]},
        {"photos": [{}]},
        {"left_out": ["x"]},
        {"photos": [dict.fromkeys(("name", "role", "size", "bucket", "repeats", "caption"), "x")]},
    ],
)
def test_a_damaged_list_of_photos_is_refused_by_its_file(tmp_path: Path, damage: dict[str, object]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"photos": [], "left_out": []} | damage), encoding="utf-8")
    with pytest.raises(MaquetteError, match=r"dataset\.json is damaged"):
        _dataset(RunFolder(tmp_path))
