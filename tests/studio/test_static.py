"""The scripts and styles of the pages: few, without a build, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import maquette.studio
from maquette.studio import refused

STUDIO = Path(maquette.studio.__file__).parent
MOST = 800  # lines of our own scripts


def test_our_own_scripts_are_short() -> None:
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in (STUDIO / "static").glob("*.js")}
    assert sum(lines.values()) < MOST, lines


def test_what_others_wrote_has_its_licence_beside_it() -> None:
    for path in (STUDIO / "static/vendor").glob("*.js"):
        licence = path.with_name(f"{path.name.partition('.')[0]}.LICENSE").read_text("utf-8")
        assert "permission" in licence.lower()


def test_nothing_names_another_computer() -> None:
    scripts_and_styles = [path for path in (STUDIO / "static").iterdir() if path.suffix in (".js", ".css")]
    for path in [*(STUDIO / "templates").glob("*.html"), *scripts_and_styles]:
        found = re.findall(r"https?://[^\s\"')]+", path.read_text("utf-8"))
        assert [url for url in found if "w3.org" not in url] == [], path.name


def test_the_rules_for_scripts_and_styles_can_be_kept() -> None:
    """Without inline scripts, styles or handlers, which the policy of the pages forbids."""
    for path in (STUDIO / "templates").glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=\"|javascript:", text), path.name
        assert "| safe" not in text or path.name == "icons.html", path.name


def test_there_is_one_scale_of_type_and_one_of_space() -> None:
    """Sizes come from the names at the top of studio.css; what is not of a text or a page is a pixel or two."""
    styles = "".join((STUDIO / "static" / name).read_text("utf-8") for name in ("studio.css", "play.css"))
    rules = re.sub(r"^\s*--.*$|/\*.*?\*/", "", styles, flags=re.MULTILINE)
    sizes = {size.strip() for size in re.findall(r"font-size: ([^;}]+)", rules)}
    assert {size for size in sizes if not re.fullmatch(r"var\(--text-\w+\)|inherit|0|\.5em", size)} == set()
    gaps = {part for gap in re.findall(r"(?<![\w-])gap: ([^;}]+)", rules) for part in gap.split()}
    assert {gap for gap in gaps if not re.fullmatch(r"var\(--s\d\)|0|2px|\.35em", gap)} == set()


def test_who_is_not_let_in_sees_the_studios_own_colours() -> None:
    styles = (STUDIO / "static" / "studio.css").read_text("utf-8")
    colours = re.findall(r"#[0-9a-f]{6}", refused.STYLE)
    assert len(colours) == 4 and all(colour in styles for colour in colours)
