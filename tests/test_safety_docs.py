"""docs/safety.md says the limits that the program has."""

import re
from pathlib import Path

from maquette import limits

ROOT = Path(__file__).parent.parent


def test_the_table_has_every_limit_with_its_value() -> None:
    text = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+) \| (.+) \|$", text, re.MULTILINE)
    told = {name: int(value.replace(",", "")) for name, value, _ in rows}
    assert told == {name: value for name, value in vars(limits).items() if name.isupper()}
    source = " ".join((ROOT / "src" / "maquette" / "limits.py").read_text(encoding="utf-8").split())
    assert [name for name, _, what in rows if what not in source] == []


def test_every_limit_is_asked_for_somewhere() -> None:
    own = Path(limits.__file__).resolve()
    source = [path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py") if path.resolve() != own]
    unused = [name for name in vars(limits) if name.isupper() and not any(name in text for text in source)]
    assert unused == []


def test_the_page_is_linked() -> None:
    assert "docs/safety.md" in (ROOT / "README.md").read_text(encoding="utf-8")
