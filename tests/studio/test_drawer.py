"""The drawing process with the real pocket base."""

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from maquette.errors import MaquetteError
from maquette.sampling.pipeline import Pipeline
from maquette.studio.drawings import Progress
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library

ROBOT = {"prompt": "a photo of a red robot", "seed": 3, "steps": 4, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawingEngine]:
    made = DrawingEngine(Library([], []), tmp_path_factory.mktemp("data"), fake=False)
    yield made
    made.close()


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_draws_what_a_pipeline_draws(engine: DrawingEngine) -> None:
    seen: list[Progress] = []
    drawing = engine.draw(ROBOT, seen.append)
    with Pipeline("pocket") as pipeline:
        drawn = pipeline.generate(**ROBOT)[0]
        assert drawing.model_hash == pipeline.base.content_hash
    picture = drawing.pictures[0]
    assert Image.open(BytesIO(picture.png)).tobytes() == drawn.image.tobytes()
    assert (picture.infotext, picture.seed) == (drawn.infotext, 3)
    assert sorted({progress.step for progress in seen}) == [0, 1, 2, 3, 4]
    preview = Image.open(BytesIO(seen[-1].preview or b""))
    assert preview.size == (16, 16)
    assert seen[-1].step == 4


def test_interrupt_hands_over_what_is_drawn(engine: DrawingEngine) -> None:
    def stop(progress: Progress) -> None:
        if progress.step >= 2:
            engine.interrupt()

    half = engine.draw({**ROBOT, "steps": 200, "batch_count": 2}, stop)
    assert half.interrupted and len(half.pictures) == 1
    colours = Image.open(BytesIO(half.pictures[0].png)).getcolors(64 * 64)
    assert colours is None or len(colours) > 10


def test_bad_requests_are_sentences_and_the_process_stays(engine: DrawingEngine) -> None:
    pid = engine.pid
    with pytest.raises(MaquetteError, match="There is no sampler called 'Magic'"):
        engine.draw({**ROBOT, "sampler": "Magic"})
    with pytest.raises(MaquetteError, match="the request: width = 60 is not possible"):
        engine.draw({**ROBOT, "width": 60})
    with pytest.raises(MaquetteError, match=r"^init_image\.png is damaged"):  # not the server's own path
        engine.draw({**ROBOT, "init_image": b"\x89PNG\r\n\x1a\nbroken"})
    assert engine.pid == pid


def test_a_grid_is_one_labelled_picture(engine: DrawingEngine) -> None:
    grid = engine.draw({**ROBOT, "x": "seed=3-5", "y": "steps=1, 2"}).pictures
    assert len(grid) == 1 and grid[0].width > 3 * 64 and grid[0].height > 2 * 64 and grid[0].seed == 3
    with pytest.raises(MaquetteError, match="This grid would have 100 pictures; 64 is the most here"):
        engine.draw({**ROBOT, "x": "seed=1-100"})
    with pytest.raises(MaquetteError, match="A grid here has one base"):
        engine.draw({**ROBOT, "x": "base=pocket, other"})


@pytest.mark.heavy
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process from /proc")
def test_memory_is_flat(engine: DrawingEngine) -> None:
    def draw(n: int) -> int:
        for seed in range(n):
            engine.draw({**ROBOT, "seed": seed, "steps": 2})
        assert engine.pid
        return resident(engine.pid)

    before = draw(4)
    assert draw(12) - before < 20_000_000


def test_the_parent_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from maquette.studio.engine import DrawingEngine; "
        "from maquette.studio.library import Library; "
        "e = DrawingEngine(Library([], []), pathlib.Path(sys.argv[1]), fake=True); "
        "e.draw({'prompt': 'a cat', 'steps': 1}); e.close(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
