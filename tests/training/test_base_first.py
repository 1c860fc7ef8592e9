"""A run whose base is drawn before the first step, for one who watches, has the same files to the byte."""

from pathlib import Path
from typing import Any

from maquette.config import TrainConfig
from maquette.events import Cancel, Event
from maquette.run_folder import RunFolder
from maquette.training.running import begun, resume
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 2, "rank": 2, "dtype": "fp32", "steps": 4, "save_every_steps": 2,
    "sample_steps": 2, "sample_prompts": ["a photo of zkw disc"], "choose": False, "keep_state": True,
}  # fmt: skip


def kept(run: Path) -> dict[str, bytes]:
    """The run's weights, states and pictures; the other files hold times and the folder's name."""
    files = [file for file in run.rglob("*") if file.suffix in (".safetensors", ".png") and file.is_file()]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def test_the_base_comes_first_and_the_bytes_stay(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    order: dict[str, list[Any]] = {"usual": [], "watched": []}

    def train(name: str, **how: bool) -> None:
        config = TrainConfig.parse(VALUES | {"photos": photos, "out": tmp_path / name / "disc"}, "the test")

        def heard(event: Event) -> None:
            if event.kind in ("metric", "sample"):
                order[name].append((event.kind, event.data["step"]))

        with begun(config, heard, **how) as trainer:
            trainer.train(0)

    train("usual")
    train("watched", base_first=True)
    base, first, second = ("sample", 0), [("metric", 1), ("metric", 2)], [("metric", 3), ("metric", 4)]
    assert order["usual"] == [*first, base, ("sample", 2), *second, ("sample", 4)]
    assert order["watched"] == [base, *first, ("sample", 2), *second, ("sample", 4)]
    usual, watched = kept(tmp_path / "usual/disc"), kept(tmp_path / "watched/disc")
    assert {"samples/000000/0.png", "disc.safetensors", "checkpoints/disc-000002.safetensors"} <= usual.keys()
    assert usual == watched


def test_a_run_that_goes_on_draws_the_base_once(tmp_path: Path) -> None:
    cancel, drawn = Cancel(), list[int]()
    config = TrainConfig.parse(
        VALUES | {"photos": make_photos(tmp_path / "photos"), "out": tmp_path / "disc"}, "the test"
    )

    def heard(event: Event) -> None:
        if event.kind == "sample":
            drawn.append(event.data["step"])
        if event.kind == "metric":
            cancel.set()

    with begun(config, heard, cancel, base_first=True) as trainer:
        trainer.train(0)
    stopped = max(RunFolder(tmp_path / "disc").checkpoints())
    resume(tmp_path / "disc", {}, heard, base_first=True)
    assert drawn.count(0) == 1 and drawn[0] == 0 and drawn[1] == stopped
