"""What is built and installed: one version, one name, every extra, and a wheel that works outside of the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import maquette

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LARGEST = 60_000_000  # bytes of a wheel


def texts() -> dict[str, str]:
    """Every text that a user reads, by its path: source with its messages, pages, README."""
    files = [*ROOT.joinpath("src").rglob("*.py"), *ROOT.joinpath("docs").rglob("*.md"), *ROOT.glob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files}


def test_the_version_is_said_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", maquette.__version__)
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    said = [name for name, text in texts().items() if "importlib.metadata" in text and "version" in text]
    assert said == []


def test_the_command_says_it_without_being_installed(tmp_path: Path) -> None:
    source = Path(maquette.__file__).parent.parent
    told = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); "
         "from maquette.cli.main import main; main(['--version'])"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout == f"maquette {maquette.__version__}\n", told.stderr


def test_what_a_message_says_to_install_exists() -> None:
    for name, text in texts().items():
        assert re.findall(r"\bmaquette\[", text) == [], f"{name} names another project's package"
        for extras in re.findall(r"maquette-lora\[([\w, -]+)\]", text):
            unknown = {extra.strip() for extra in extras.split(",")} - EXTRAS.keys()
            assert unknown == set(), name


def test_every_pinned_package_is_asked_for_in_a_range_that_holds_it() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines if "==" in x)}
    wanted = [*PROJECT["project"]["dependencies"], *(item for extra in EXTRAS.values() for item in extra)]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "maquette-lora":
            assert requirement.extras <= EXTRAS.keys()
        elif name in pins:
            assert requirement.specifier.contains(pins[name]), f"{requirement} but {pins[name]} is pinned"
        else:  # extras that need an account or a graphics card are not tested here
            assert any(str(requirement) in EXTRAS[extra] for extra in ("wandb", "eight-bit")), requirement


# First versions without holes that a stranger's photo, request or file could use. `make audit` asks for newer ones.
FLOORS = {
    "h11": "0.16",  # CVE-2025-43859: chunked bodies read in two ways
    "jinja2": "3.1.6",  # CVE-2025-27516
    "pillow": "12.3",  # CVE-2026-59199: writes beyond a picture when it is cropped or pasted
    "python-multipart": "0.0.30",  # CVE-2024-53981, CVE-2026-24486, -40347, -42561, -53537
    "starlette": "1.3.1",  # CVE-2025-62727, CVE-2026-48710, PYSEC-2026-248, -249
    "torch": "2.6",  # CVE-2025-32434: a pickle runs in spite of weights_only
}


def test_no_version_with_a_known_hole_may_be_installed() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    wanted = [*PROJECT["project"]["dependencies"], *EXTRAS["studio"]]
    least = {
        canonicalize_name(asked.name): Version(bound.version)
        for asked in map(Requirement, wanted)
        for bound in asked.specifier
        if bound.operator == ">="
    }
    assert {name: str(least[name]) for name, floor in FLOORS.items() if least[name] < Version(floor)} == {}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source archive, built from the checkout."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    build = "import sys, hatchling.build as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
    found = {}
    for kind in ("wheel", "sdist"):
        told = subprocess.run(
            [sys.executable, "-c", build, kind, str(out)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found[kind] = out / told.stdout.split()[-1]
    return found


def test_the_wheel_holds_the_pocket_base_and_nothing_else_that_is_big(built: dict[str, Path]) -> None:
    assert built["wheel"].name == f"maquette_lora-{maquette.__version__}-py3-none-any.whl"
    assert built["wheel"].stat().st_size < LARGEST and built["sdist"].stat().st_size < LARGEST
    with zipfile.ZipFile(built["wheel"]) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        entry = archive.read(f"maquette_lora-{maquette.__version__}.dist-info/entry_points.txt").decode()
    assert "maquette = maquette.cli.start:main" in entry
    pocket = ROOT / "src" / "maquette" / "families" / "pocket"
    models = [p for kind in ("weights", "controlnets") for p in (pocket / kind).rglob("*") if p.is_file()]
    there = {f"maquette/families/pocket/{p.relative_to(pocket).as_posix()}" for p in models}
    assert {"maquette/py.typed", "maquette/families/pocket/CARD.md", *there} <= sizes.keys()
    assert {name for name, size in sizes.items() if size > 500_000} <= there
    strange = [name for name in sizes if not name.startswith(("maquette/", "maquette_lora-"))]
    assert strange == []
    source = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src" / "maquette").rglob("*.py")}
    assert source <= sizes.keys()


def test_the_source_archive_builds_tests_and_documents_itself(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt", "mkdocs.yml"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file()} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {"src", "tests", "benchmarks", "tools", "docs"}


@pytest.mark.heavy
def test_the_demo_runs_from_the_installed_wheel_outside_of_the_checkout(built: dict[str, Path], tmp_path: Path) -> None:
    """In an environment of its own, which finds the dependencies in this one and maquette in the wheel alone."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = next(path for path in (home / "bin" / "python", home / "Scripts" / "python.exe") if path.exists())
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", built["wheel"]],
        check=True,
    )
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MAQUETTE"))}
    command = python.with_name("maquette")
    where = [python, "-c", "import maquette; print(maquette.__file__)"]
    told = subprocess.run(where, cwd=tmp_path, env=kept, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).is_relative_to(site)
    told = subprocess.run(
        [command, "demo", "--steps", "4", "--out", "demo"], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "demo" / "demo.safetensors").exists()
