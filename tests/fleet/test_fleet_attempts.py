"""Single attempts in this process: the zombie, going on from another attempt's state, who commits."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_fakes import FakeTrainer

from maquette.config import TrainConfig
from maquette.demo.mascot import photo
from maquette.events import Cancel, Event, Listener
from maquette.fleet import carrying, keys, layout
from maquette.fleet.attempt import Attempt
from maquette.fleet.preparing import Prepared, _scratch_prefix, prepare, sweep
from maquette.fleet.records import Outcome, Task
from maquette.fleet.store import LocalStore, Store, open_store
from maquette.fleet.trainer import USUAL, Trained, Trainer, WarmFleetTrainer
from maquette.fleet.worker import Worker


def task(tmp_path: Path, store: str = "store", **settings: Any) -> Task:
    body = {"photos": str(tmp_path / "photos"), "settings": {"subject": "zkw robot", **settings}, "then": []}
    return Task(1, "default", "job", "row", "mark", json.dumps(body), str(tmp_path / store))


def attempt(told: Task, trainer: Trainer) -> Attempt:
    return Attempt(prepare(told, keys.Digests()), trainer, "node", "worker", threading.Event())


@pytest.fixture
def photos(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        photo(number).resize((96, 96)).save(folder / f"{number}.png")


def test_a_zombie_finds_the_others_result_and_deletes_what_it_made(tmp_path: Path, photos: None) -> None:
    """Its machine was thought dead, another did the job, and then it comes to its end after all."""
    store = LocalStore(tmp_path / "store")
    others: list[Outcome] = []

    class Zombie(FakeTrainer):
        def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
            claim = next((tmp_path / "store").rglob("claim.json"))
            claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": 0}))  # no sign of life for long
            others.append(attempt(task(tmp_path), FakeTrainer()).run())
            return super().train(config, on_event, cancel)

    ended = attempt(task(tmp_path), Zombie()).run()
    assert (others[0].state, ended.state) == ("committed", "known")
    place = layout.run_folder("default", ended.key)
    told = json.loads(store.read(f"{place}/result.json"))
    assert store.folders(f"{place}/attempts") == [told["attempt"]]
    assert store.exists(f"{place}/attempts/{told['attempt']}/lora.safetensors")


def test_who_is_at_work_is_left_alone(tmp_path: Path, photos: None) -> None:
    seen: list[str] = []

    class Watched(FakeTrainer):
        def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
            seen.append(attempt(task(tmp_path), FakeTrainer()).run().state)
            return super().train(config, on_event, cancel)

    assert attempt(task(tmp_path), Watched()).run().state == "committed"
    assert seen == ["busy"]


def test_a_store_without_exclusive_creation_leaves_the_commit_to_the_driver(
    tmp_path: Path, photos: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "exclusive", False)
    ended = attempt(task(tmp_path), FakeTrainer()).run()
    assert ended.uncommitted and ended.result is not None and ended.result["status"] == "done"
    assert not list((tmp_path / "store").rglob("result.json"))


class Interrupted(WarmFleetTrainer):
    """Drains its attempt at a step, as a machine that is about to go does."""

    attempt: Attempt
    at = 3

    def train(self, config: TrainConfig, on_event: Listener, cancel: Cancel) -> Trained:
        def listen(event: Event) -> None:
            on_event(event)
            if event.kind == "metric" and event.data["step"] == self.at:
                self.attempt.drain = True
                cancel.set()

        return super().train(config, listen, cancel)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every training counts as one of more than two minutes."""
    monkeypatch.setattr(carrying, "LONG", 0.0)
    yield


def lora(store: Store, outcome: Outcome) -> bytes:
    assert outcome.state == "committed" and outcome.result is not None, outcome
    name = outcome.result["attempt"]
    return store.read(f"{layout.attempts('default', outcome.key)}/{name}/lora.safetensors")


def test_another_machine_goes_on_from_the_state_to_the_same_bytes(tmp_path: Path, photos: None, long: None) -> None:
    settings = {"steps": 5, "rank": 2, "batch_size": 1, "sample_prompts": [], "choose": False}
    trainer = Interrupted()
    first = attempt(task(tmp_path, **settings), trainer)
    trainer.attempt = first
    ended = first.run()
    assert ended.state == "drained"
    store = open_store(str(tmp_path / "store"))
    assert carrying.newest_state(store, "default", ended.key) == f"{first.folder}/state/000003"
    second = attempt(task(tmp_path, **settings), WarmFleetTrainer()).run()
    assert second.result is not None and second.result["resumed_from"] == "000003"
    alone = attempt(task(tmp_path, "other", **settings), WarmFleetTrainer()).run()
    assert alone.result is not None and alone.result["resumed_from"] == ""
    assert lora(store, second) == lora(open_store(str(tmp_path / "other")), alone)
    written = list((tmp_path / "store").rglob("run.toml"))  # of the first attempt; the second's state is gone
    assert {path.parts[-4] for path in written} == {first.name}
    assert [path for path in written if str(tmp_path) in path.read_text()] == []


def test_short_trainings_keep_no_state(tmp_path: Path, photos: None) -> None:
    settings = {"steps": 5, "rank": 2, "batch_size": 1, "sample_prompts": [], "choose": False}
    trainer = Interrupted()
    trainer.attempt = attempt(task(tmp_path, **settings), trainer)
    ended = trainer.attempt.run()
    assert ended.state == "drained"
    assert carrying.newest_state(open_store(str(tmp_path / "store")), "default", ended.key) is None


def test_a_state_that_names_files_outside_of_it_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("s/whole.json", json.dumps({"step": 1, "files": ["../../evil"]}).encode())
    config = TrainConfig.parse({"photos": tmp_path, "out": tmp_path / "run" / "lora"})
    with pytest.raises(Exception, match="names a file outside"):
        carrying.restore(store, "s", config)
    assert not (tmp_path / "evil").exists()


def test_what_killed_workers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    import os

    dead, other = f"{_scratch_prefix()}{2**22 + 1}-x", f"maquette-fleet-00000000-{2**22 + 1}-x"
    alive = f"{_scratch_prefix()}{os.getpid()}-x"
    for name in (dead, alive, other, "photos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    sweep(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {alive, other, "photos"}


# What is prepared beside the training at work


def of_robot(tmp_path: Path, number: int, **settings: object) -> Task:
    """A task whose photos are pictures."""
    folder = tmp_path / f"robot-{number}"
    folder.mkdir()
    photo(number).resize((96, 96)).save(folder / "0.png")
    body = {"photos": str(folder), "settings": {"subject": "zkw robot", **settings}, "then": []}
    return Task(number, "default", f"j{number}", "row", "mark", json.dumps(body), str(tmp_path / "store"))


def test_photos_are_encoded_before_a_jobs_turn_in_a_folder_that_goes_with_it(tmp_path: Path) -> None:
    worker = Worker(USUAL, "node", "worker")
    trainer: Any = worker.trainer
    made = worker.prepare(of_robot(tmp_path, 1))
    assert isinstance(made, Prepared) and len(list(made.scratch.rglob("*.latent"))) == 1
    made.close()
    assert not made.scratch.exists()
    trainer._base = "another.safetensors"  # at work: two bases at a time may not fit
    beside = worker.prepare(of_robot(tmp_path, 2))
    assert isinstance(beside, Prepared) and not list(beside.scratch.rglob("*.latent"))
    trainer._base = ""
    worker.draining.set()
    late = worker.prepare(of_robot(tmp_path, 3))
    assert isinstance(late, Prepared) and late.fault is None and not list(late.scratch.rglob("*.latent"))
    for one in (beside, late):
        one.close()


def test_photos_that_cannot_be_encoded_are_the_trainings_to_tell_of(tmp_path: Path, photos: None) -> None:
    made = Worker("fleet_fakes:FakeTrainer", "node", "worker").prepare(task(tmp_path, subject="unreadable thing"))
    assert isinstance(made, Prepared) and made.fault is None
    made.close()


def test_a_job_has_as_many_threads_as_train_has(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = WarmFleetTrainer()
    trainer._threads = 4
    pocket, other = (TrainConfig.parse({"photos": "x", "base": base}) for base in ("pocket", "sd15.safetensors"))
    monkeypatch.setattr("maquette.openmp.number_decided", lambda: False)
    assert (trainer._threads_for(pocket), trainer._threads_for(other)) == (1, 4)
    monkeypatch.setattr("maquette.openmp.number_decided", lambda: True)
    assert trainer._threads_for(pocket) == 4
