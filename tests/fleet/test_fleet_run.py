"""The fleet from rows to results, with workers in processes of their own and a trainer that takes no time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maquette.config.fleet import FleetConfig
from maquette.errors import MaquetteError
from maquette.fleet import driving, failures, index, keeping, planning, reporting
from maquette.fleet.local import LocalExecutor
from maquette.fleet.records import Outcome
from maquette.fleet.store import LocalStore
from maquette.fleet.tally import RunResult

FAKE = "fleet_fakes:FakeTrainer"
Write = Callable[..., Path]


def settings(tmp_path: Path, jobs: Path | None = None, **more: Any) -> FleetConfig:
    return FleetConfig.parse({"root": str(tmp_path / "root"), **({"jobs": jobs} if jobs else {}), **more})


def run(tmp_path: Path, jobs: Path | None = None, **more: Any) -> RunResult:
    return driving.run(settings(tmp_path, jobs, **more), trainer=FAKE)


def results(tmp_path: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(file.read_bytes()) for file in (tmp_path / "root").glob("runs/*/*/*/result.json")]
    assert len({told["key"] for told in found}) == len(found)
    return {told["job"]: told for told in found}


def test_each_job_gets_one_result_and_a_second_run_does_nothing(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({}, {"rank": 8}, {"rank": 4, "tenant": "other"})
    first = run(tmp_path, jobs, workers=2)
    assert (first.status, first.committed, first.done, first.attempts) == ("finished", 3, 3, 3)
    found = results(tmp_path)
    for told in found.values():
        file = LocalStore(tmp_path / "root")
        place = f"runs/{told['tenant']}/{told['key'][:2]}/{told['key']}/attempts/{told['attempt']}/lora.safetensors"
        assert len(file.read(place)) == 256
        assert told["files"].keys() == {"lora.safetensors"} and told["size"] == 256
    second = run(tmp_path, jobs)
    assert (second.committed, second.known, second.attempts) == (0, 3, 0)
    assert results(tmp_path) == found
    assert len(list((tmp_path / "root").glob("runs/*/*/*/attempts/*"))) == 3
    assert not list((tmp_path / "root").rglob("claim.json"))


def test_the_same_work_is_done_once_whatever_its_order_and_name(tmp_path: Path, write_jobs: Write) -> None:
    first = write_jobs({"id": "a"}, {"id": "b", "rank": 8})
    photos = [json.loads(line)["photos"] for line in first.read_text().splitlines()]
    assert run(tmp_path, first).committed == 2
    copies = []
    for name, folder in zip("ab", photos, strict=True):
        copy = tmp_path / "copies" / name
        copy.mkdir(parents=True)
        (copy / "a.png").write_bytes(Path(folder, "a.png").read_bytes())
        copies.append(str(copy))
    other = write_jobs(
        {"id": "y", "photos": copies[1], "rank": 8}, {"id": "x", "photos": copies[0]},
        {"id": "twin", "photos": copies[0]}, name="other.jsonl",
    )  # fmt: skip
    again = run(tmp_path, other)
    assert (again.committed, again.known) == (0, 3)
    assert len(results(tmp_path)) == 2
    assert planning.plan(settings(tmp_path, other)).done == 3  # by what the run noted, without reading photos
    assert reporting.status(settings(tmp_path)).same == 3


def test_bad_jobs_are_named_and_the_others_run(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs(
        {}, {"photos": "nowhere"}, {"rnk": 8}, {"base": "absent.safetensors"}, {"id": "job-0"}, {"rank": -1},
        {"tenant": "../x"}, {"priority": 11}, {"then": ["sing"]}, {"deadline": "soon"}, {"out": "x"}, {"max_cost": 0},
        {"tenant": "Con"},
    )  # fmt: skip
    jobs.write_text(jobs.read_text() + "{broken\n[]\n")
    plan = planning.plan(settings(tmp_path, jobs))
    whys = [bad["why"] for bad in plan.bad]
    for why, part in zip(
        whys,
        ["There is no folder of photos", "unknown key 'rnk'; did you mean 'rank'?", "There is no file or folder",
         "the id 'job-0' is there twice", "rank = -1", "tenant = '../x'", "priority = 11", "'sing' is no step",
         "deadline = 'soon'", "out is not a job's", "max_cost is a number above 0",
         "tenant = 'Con' is a name that Windows keeps to itself", "not valid JSON", "no JSON object"],
        strict=True,
    ):  # fmt: skip
        assert part in why
    assert plan.bad[0]["place"].endswith("jobs.jsonl, line 2")
    assert (plan.new, plan.invalid, plan.jobs) == (1, 14, 15)
    ended = run(tmp_path, jobs)
    assert (ended.done, ended.invalid) == (1, 14)


def test_failures_by_kind(tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.0)
    kinds = ["nan", "oom", "user", "disk", "die", "good"]
    jobs = write_jobs(*({"id": kind, "subject": f"{kind} thing"} for kind in kinds), {"id": "large", "rank": 100,
                      "subject": "oom thing"})  # fmt: skip
    ended = run(tmp_path, jobs, workers=2, attempts=2)
    found = results(tmp_path)
    assert {name: (told["status"], told["kind"]) for name, told in found.items()} == {
        "nan": ("failed", "nan"), "oom": ("done", ""), "user": ("rejected", "user"), "disk": ("failed", "machine"),
        "die": ("failed", "machine"), "good": ("done", ""), "large": ("failed", "oom"),
    }  # fmt: skip
    assert found["oom"]["low_memory"] and found["oom"]["trial"] == 2 and found["oom"]["wasted_seconds"] > 0
    assert found["user"]["message"] == "photos/a.png is no photo."  # without the path
    assert (ended.done, ended.rejected, ended.failed) == (2, 1, 4)
    assert reporting.status(settings(tmp_path)).by_kind == {"nan": 1, "user": 1, "machine": 2, "oom": 1}

    back = keeping.retry(settings(tmp_path, failed="machine"))
    assert sorted(back.names) == ["die", "disk"]
    assert planning.plan(settings(tmp_path, jobs)).new == 2
    assert "disk" not in results(tmp_path)
    with pytest.raises(MaquetteError, match="No job with the id 'nobody'"):
        keeping.retry(settings(tmp_path, ids=["nobody"]))
    assert keeping.retry(settings(tmp_path, ids=["good", "nan"])).names == ["nan"]


def test_a_job_that_kills_its_workers_is_poison(
    tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.0)
    ended = run(tmp_path, write_jobs({"subject": "die thing"}, {}))
    assert (ended.done, ended.failed, ended.attempts) == (1, 1, 4)
    told = results(tmp_path)["job-0"]
    assert (told["kind"], told["trial"]) == ("poison", 3)
    assert told["message"] == "The worker ended with 9."


def test_a_failure_is_that_of_all_jobs_of_the_same_work(tmp_path: Path, write_jobs: Write) -> None:
    row = {"subject": "user thing", "photos": str(tmp_path / "photos" / "good")}
    jobs = write_jobs({"id": "good"}, {"id": "one", **row}, {"id": "two", **row})
    run(tmp_path, jobs)
    found = reporting.status(settings(tmp_path))
    assert (found.done, found.rejected, found.same, found.by_tenant["default"]["rejected"]) == (1, 2, 0, 2)
    assert keeping.retry(settings(tmp_path, ids=["two"])).names == ["one"]
    assert planning.plan(settings(tmp_path, jobs)).new == 2


def test_what_follows_the_training(tmp_path: Path, write_jobs: Write) -> None:
    (tmp_path / "pack.toml").write_text('prompts = ["a portrait of {subject}"]\nsteps = 4\n')
    jobs = write_jobs({"then": ["evaluate", "generate:pack.toml"]}, {"rank": 64, "then": "evaluate"})
    assert run(tmp_path, jobs).done == 2
    first, second = results(tmp_path)["job-0"], results(tmp_path)["job-1"]
    assert (first["step"], first["weight"], first["accepted"], first["score"]) == (5, 0.7, True, 0.5)
    assert set(first["files"]) == {"lora.safetensors", "pictures/0.png"}
    assert second["accepted"] is False
    assert first["seconds"].keys() == {"prepare", "train", "evaluate", "generate", "upload"}
    assert (reporting.status(settings(tmp_path)).accepted, reporting.status(settings(tmp_path)).judged) == (1, 2)


def test_cancelled_jobs_are_not_run_until_they_are_retried(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({"subject": "nan thing"}, {})
    with pytest.raises(MaquetteError, match="Which jobs"):
        keeping.cancel(settings(tmp_path))
    run(tmp_path, write_jobs({"id": "other"}, name="other.jsonl"))
    planning_store = planning.open_root(settings(tmp_path)).store
    submission = planning.Submission(planning_store)
    for job in planning.jobs_of(settings(tmp_path, jobs), planning_store, planning.FleetSettings()):
        submission.add(job)  # type: ignore[arg-type]
    submission.write()
    assert keeping.cancel(settings(tmp_path, ids=["job-1"])).names == ["job-1"]
    ended = run(tmp_path, jobs)
    assert (ended.cancelled, ended.failed, ended.done) == (1, 1, 0)
    assert reporting.status(settings(tmp_path)).cancelled == 1
    assert keeping.retry(settings(tmp_path, ids=["job-1"])).names == ["job-1"]
    assert run(tmp_path, jobs).done == 1


def interrupted(tmp_path: Path, jobs: Path) -> RunResult:
    """A run that is told to stop once a job has begun."""
    cancel = threading.Event()

    class Interrupted(LocalExecutor):
        def wait(self, timeout: float) -> list[Outcome]:
            if list((tmp_path / "root").rglob("claim.json")):
                cancel.set()
            return super().wait(0.1)

    return driving.run(settings(tmp_path, jobs), cancel=cancel, executor=Interrupted(trainer=FAKE))


def test_a_signal_drains_and_the_next_run_goes_on(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({"subject": "wait thing"}, {"id": "after"})
    ended = interrupted(tmp_path, jobs)
    assert (ended.status, ended.done) == ("stopped", 0)
    assert not list((tmp_path / "root").rglob("claim.json"))
    again = run(tmp_path, write_jobs({"id": "after"}))
    assert again.done == 1


def test_deadlines_and_budgets(tmp_path: Path, write_jobs: Write) -> None:
    (tmp_path / "fleet.toml").write_text("[prices]\ncpu = 3600.0\n[quotas.poor]\nmoney = 0.000001\nin_flight = 1\n")
    jobs = write_jobs(
        {"deadline": "2020-01-01"}, {"id": "dear", "max_cost": 1e-9}, {"id": "p1", "tenant": "poor"},
        {"id": "p2", "tenant": "poor"}, {"id": "good"},
    )  # fmt: skip
    ended = run(tmp_path, jobs, settings=tmp_path / "fleet.toml")
    assert (ended.late, ended.held, ended.done, ended.failed) == (1, 1, 2, 1)
    assert results(tmp_path)["dear"]["kind"] == "budget"
    good = results(tmp_path)["good"]
    assert good["cost"] == pytest.approx(sum(good["seconds"].values()), rel=1e-6)  # a unit of money a second
    found = reporting.report(settings(tmp_path, out=tmp_path / "page.html"))
    assert found.cost is not None and found.cost >= good["cost"]
    assert found.cost_per_lora == pytest.approx(found.cost / 2)
    words = dict(reporting.table(found))
    assert words["cost of an accepted LoRA"] == "there is none yet" and words["cost of a LoRA"].startswith("$")
    page = (tmp_path / "page.html").read_text()
    assert "2 of 5 jobs done" in page and "budget" in page


def test_a_limit_of_cost_is_refused_where_nothing_tells_the_cost(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({"id": "dear", "max_cost": 5}, {"id": "good"})
    (bad,) = planning.plan(settings(tmp_path, jobs)).bad
    assert bad["place"].endswith("line 1") and bad["why"].startswith("max_cost needs [prices] in fleet.toml")
    ended = run(tmp_path, jobs)
    assert (ended.invalid, ended.done) == (1, 1)
    (tmp_path / "fleet.toml").write_text("[prices]\nH200 = 3.5\n")
    ended = run(tmp_path, jobs, settings=tmp_path / "fleet.toml")
    assert (ended.invalid, ended.failed, ended.known) == (0, 1, 1)
    told = results(tmp_path)["dear"]
    assert told["kind"] == "budget" and told["message"].startswith("[prices] in fleet.toml has none for cpu")
    (tmp_path / "fleet.toml").write_text("[quotas.poor]\nmoney = 1.0\n")
    with pytest.raises(MaquetteError, match=r"fleet\.toml.*money in \[quotas\.poor\] needs \[prices\]"):
        planning.plan(settings(tmp_path, jobs, settings=tmp_path / "fleet.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[quotas.poor]\nmony = 1\n",
            r"fleet\.toml, \[quotas\.poor\] has the unknown key 'mony'; did you mean 'money'",
        ),
        ("[quotas.poor]\nin_flight = 0\n", r"fleet\.toml, \[quotas\.poor\]: in_flight = 0 is not possible"),
        ("[quotas]\npoor = 3\n", r"fleet\.toml: quotas\.poor = 3 is not possible"),
        ("[prices]\ncpu = -1\n", r"fleet\.toml: prices\.cpu = -1 is not possible"),
    ],
)
def test_faults_of_the_settings_name_the_table(tmp_path: Path, write_jobs: Write, text: str, says: str) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(MaquetteError, match=says):
        planning.plan(settings(tmp_path, write_jobs({}), settings=tmp_path / "fleet.toml"))


def test_money_that_cannot_be_counted_holds_its_tenant(tmp_path: Path, write_jobs: Write) -> None:
    (tmp_path / "fleet.toml").write_text("[prices]\nH200 = 3.5\n[quotas.poor]\nmoney = 1.0\n")
    jobs = write_jobs({"id": "p1", "tenant": "poor"}, {"id": "p2", "tenant": "poor"}, {"id": "good"})
    ended = run(tmp_path, jobs, settings=tmp_path / "fleet.toml")
    assert (ended.held, ended.done, ended.failed, ended.attempts) == (2, 1, 0, 1)
    assert ended.problems == [
        "poor: [prices] in fleet.toml has none for cpu, so that the tenant's money cannot be counted: add it."
    ]
    (tmp_path / "fleet.toml").write_text("[prices]\ncpu = 0.1\n[quotas.poor]\nmoney = 1.0\n")
    ended = run(tmp_path, jobs, settings=tmp_path / "fleet.toml")
    assert (ended.held, ended.done, ended.known, ended.problems) == (0, 2, 1, [])


def test_a_signal_ends_an_evaluation_too(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({"subject": "judged thing", "then": ["evaluate"]})
    ended = interrupted(tmp_path, jobs)
    assert (ended.status, ended.done) == ("stopped", 0)
    assert not results(tmp_path) and not list((tmp_path / "root").rglob("claim.json"))


def test_a_root_that_is_empty(tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaquetteError, match="root is empty: name a folder"):
        driving.run(FleetConfig.parse({"root": "", "jobs": write_jobs({})}), trainer=FAKE)


def test_photos_are_deleted_when_all_jobs_with_them_are_done(tmp_path: Path, write_jobs: Write) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a.png").write_bytes(b"a")
    (shared / "a.txt").write_text("a caption")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "b.png").write_bytes(b"b")
    jobs = write_jobs(
        {"photos": str(shared)}, {"photos": str(shared), "rank": 4},
        {"photos": str(kept)}, {"photos": str(kept), "subject": "nan thing"},
    )  # fmt: skip
    ended = run(tmp_path, jobs, delete_photos=True)
    assert (ended.done, ended.failed) == (3, 1)
    assert not shared.exists() and (kept / "b.png").exists()
    assert planning.plan(settings(tmp_path, jobs)).done == 3  # though the photos are gone


def test_what_attempts_left_behind_is_found_and_removed(tmp_path: Path, write_jobs: Write) -> None:
    run(tmp_path, write_jobs({}, {"id": "b"}))
    store = LocalStore(tmp_path / "root")
    told = results(tmp_path)["job-0"]
    place = f"runs/default/{told['key'][:2]}/{told['key']}/attempts"
    store.write(f"{place}/01-zombie/lora.safetensors", b"x" * 100)
    listed = keeping.gc(settings(tmp_path))
    assert (listed.names, listed.bytes, listed.removed) == ([f"{place}/01-zombie"], 100, False)
    assert store.exists(f"{place}/01-zombie/lora.safetensors")
    assert keeping.gc(settings(tmp_path, yes=True)).removed
    assert not store.exists(f"{place}/01-zombie")
    assert store.exists(f"{place}/{told['attempt']}/lora.safetensors")
    assert keeping.gc(settings(tmp_path)).names == []


def test_results_are_found_without_their_parts(tmp_path: Path, write_jobs: Write) -> None:
    jobs = write_jobs({}, {"id": "b"})
    run(tmp_path, jobs)
    store = LocalStore(tmp_path / "root")
    before = sorted(told["key"] for told in index.results(store))
    store.remove(["results"])
    assert sorted(told["key"] for told in index.results(store)) == before
    assert run(tmp_path, jobs).known == 2


def test_a_worker_without_room_says_so_and_the_run_ends(
    tmp_path: Path, write_jobs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.0)
    (tmp_path / "file").touch()
    jobs = write_jobs({}, {"id": "same work", "photos": str(tmp_path / "photos" / "job-0")})
    ended = run(tmp_path, jobs, attempts=2, scratch=tmp_path / "file")
    assert (ended.done, ended.failed, ended.attempts) == (0, 2, 4)
    assert "FileExistsError" in ended.problems[0] and not results(tmp_path)
    assert run(tmp_path, jobs, scratch=tmp_path / "made" / "below").done == 1
    assert not list((tmp_path / "made" / "below").iterdir())


def test_a_worker_that_dies_while_it_drains(tmp_path: Path, write_jobs: Write) -> None:
    cancel = threading.Event()

    class Killed(LocalExecutor):
        def wait(self, timeout: float) -> list[Outcome]:
            if list((tmp_path / "root").rglob("claim.json")) and not cancel.is_set():
                cancel.set()
                self.workers[0].process.kill()
            return super().wait(0.1)

    jobs = write_jobs({"subject": "wait thing"}, {"id": "after"})
    ended = driving.run(settings(tmp_path, jobs), cancel=cancel, executor=Killed(trainer=FAKE))
    assert (ended.status, ended.done) == ("stopped", 0)


def test_workers_do_not_share_memory(tmp_path: Path, write_jobs: Write) -> None:
    with pytest.raises(MaquetteError, match="which workers do not share"):
        driving.run(settings(tmp_path, write_jobs({}), root="memory://fleet"), trainer=FAKE)


def test_an_address_that_is_none(tmp_path: Path, write_jobs: Write) -> None:
    with pytest.raises(MaquetteError, match=r"address = 'moon' is none; give local, auto or ray://"):
        run(tmp_path, write_jobs({}), address="moon")
