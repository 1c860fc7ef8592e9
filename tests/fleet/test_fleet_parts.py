"""The parts of the fleet by themselves: rows, keys, store, schedule, kinds of failure, money."""

from __future__ import annotations

import errno
import json
import math
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.config.fleet import FleetSettings, Quota
from maquette.errors import Diverged, MaquetteError, OutOfMemory
from maquette.fleet import claiming, failures, keys, photos
from maquette.fleet.failures import kind_of
from maquette.fleet.jobs import Bad, Job, read_jobs
from maquette.fleet.records import price_of, read_result
from maquette.fleet.reporting import percentiles
from maquette.fleet.rows import Row, read_rows
from maquette.fleet.schedule import Schedule, Waiting
from maquette.fleet.store import FsspecStore, LocalStore, Store, open_store
from maquette.fleet.trainer import pack_of


def job(name: str, tenant: str = "default", priority: int = 5, deadline: float = float("inf")) -> Job:
    return Job(name, tenant, name, name, priority, deadline, "pocket", 1, "{}")


# Rows


def test_toml_combines_the_grid_with_each_job(tmp_path: Path) -> None:
    file = tmp_path / "jobs.toml"
    file.write_text(
        '[defaults]\nsubject = "zkw robot"\nrank = 4\n[grid]\nrank = [8, 16]\nflip_aug = [true, false]\n'
        '[[job]]\nid = "a"\nphotos = "p"\n[[job]]\nphotos = "q"\n'
    )
    rows = list(read_rows(file, {"base": "pocket", "rank": 1}))
    assert [row.values.get("id") for row in rows[:4]] == [
        "a-rank-8-flip_aug-true", "a-rank-8-flip_aug-false", "a-rank-16-flip_aug-true", "a-rank-16-flip_aug-false",
    ]  # fmt: skip
    assert len(rows) == 8 and rows[5].values == {
        "base": "pocket", "subject": "zkw robot", "photos": "q", "rank": 8, "flip_aug": False,
    }  # fmt: skip
    assert rows[4].place == f"{file}, job 2"


def test_csv_reads_numbers_and_passes_over_empty_cells(tmp_path: Path) -> None:
    file = tmp_path / "jobs.csv"
    file.write_text("id,photos,subject,rank,flip_aug,then\n7,p,zkw robot,8,true,evaluate\n8,q,,,,\n9,q,a,1,true,,x\n")
    rows = list(read_rows(file))
    assert rows[0].values == {
        "id": "7", "photos": "p", "subject": "zkw robot", "rank": 8, "flip_aug": True, "then": "evaluate",
    }  # fmt: skip
    assert rows[1].values == {"id": "8", "photos": "q"}
    assert rows[2].fault == f"{file}, line 4 has more cells than the first line has names."


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("jobs.txt", "", "no file of jobs: give .jsonl, .csv or .toml"),
        ("jobs.toml", "[grid]\nrank = [1]\n", "has no jobs"),
        ("jobs.toml", "[[job]]\nid = 1\n[gird]\n", "unknown key 'gird'"),
        ("jobs.toml", "[grid]\nrank = 4\n[[job]]\nid = 1\n", "rank in [grid] is no list"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MaquetteError) as error:
        list(read_rows(tmp_path / name))
    assert says in str(error.value)


def test_a_missing_file_of_jobs_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"none\.jsonl cannot be read"):
        list(read_rows(tmp_path / "none.jsonl"))


# Keys


def read(tmp_path: Path, **values: Any) -> Job | Bad:
    folder = tmp_path / "p"
    if not folder.exists():
        folder.mkdir()
        (folder / "a.png").write_bytes(b"a")
    return next(read_jobs([Row("here", {"photos": "p", "subject": "zkw robot", **values})], tmp_path))


def mark(tmp_path: Path, **values: Any) -> str:
    found = read(tmp_path, **values)
    assert isinstance(found, Job), found
    return found.mark


def test_what_changes_the_cheap_key_and_what_does_not(tmp_path: Path) -> None:
    plain = mark(tmp_path)
    for same in ({"rank": 16}, {"seed": 0}, {"id": "x"}, {"priority": 9}, {"set": {"rank": 16}}, {"base": "pocket"},
                 {"alpha": 16}, {"set": {"alpha": 16.0}}):  # fmt: skip
        assert mark(tmp_path, **same) == plain, same
    others = [{"rank": 8}, {"seed": 1}, {"subject": "other robot"}, {"then": ["evaluate"]}, {"set": {"steps": 7}},
              {"alpha": 8}]  # fmt: skip
    assert len({plain, *(mark(tmp_path, **other) for other in others)}) == 1 + len(others)
    (tmp_path / "p" / "a.txt").write_text("a caption")
    assert mark(tmp_path) != plain


def test_kind_gives_a_single_word_its_class(tmp_path: Path) -> None:
    assert mark(tmp_path, subject="zkw", kind="person") == mark(tmp_path, subject="zkw person", kind="person")
    assert mark(tmp_path, subject="zkw", kind="person") != mark(tmp_path, subject="zkw")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": -1}, "seed = -1"), ({"seed": "x"}, "seed"), ({"subject": 5}, "subject = 5"),
        ({"set": 3}, "set is no table"), ({"set": {"photos": "x"}}, "photos stands in set"),
        ({"photos": []}, "lacks 'photos'"), ({"set": {"two_pass": True}}, "two_pass is not a job's"),
        ({"then": 3}, "then is no list"), ({"then": "generate:none.toml"}, "none.toml"),
    ],
)  # fmt: skip
def test_rows_that_are_no_jobs(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    found = read(tmp_path, **values)
    assert isinstance(found, Bad) and says in found.why


def test_the_key_is_of_contents_and_not_of_places(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    digests = keys.Digests()
    assert digests.of(str(first)) == digests.of(str(second))
    assert digests.of("pocket") == "pocket" and digests.of("hf:a/b") == "hf:a/b"
    config = TrainConfig.parse({"photos": "x", "subject": "a b"})
    moved = TrainConfig.parse({"photos": "y", "subject": "a b", "out": "z", "device": "cpu"})
    contents = {"photos": [("a.png", "1")], "base": "pocket"}
    key = keys.key_of(config, [], contents)
    assert key == keys.key_of(moved, [], contents) and len(key) == 24
    written_out = TrainConfig.parse({"photos": "x", "subject": "a b", "rank": config.rank, "alpha": config.rank})
    assert key == keys.key_of(written_out, [], contents)
    for follows in ({"dtype": "fp32"}, {"steps": 100}, {"batch_size": 1}):  # docs/fleet.md: another job
        assert key != keys.key_of(TrainConfig.parse({"photos": "x", "subject": "a b", **follows}), [], contents)
    assert key != keys.key_of(config, ["evaluate"], contents)
    assert key != keys.key_of(config, [], {**contents, "base": "other"})
    second.write_bytes(b"other weights")
    assert digests.of(str(first)) != digests.of(str(second))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"weights")
    assert len(digests.of(str(tmp_path / "folder"))) == 64
    with pytest.raises(MaquetteError, match="no file or folder"):
        digests.of(str(tmp_path / "absent"))


# Photos


def test_lists_of_photos_come_with_their_captions_under_neutral_names(tmp_path: Path) -> None:
    for name in ("anna.png", "anna.txt", "b.JPG"):
        (tmp_path / name).write_bytes(name.encode())
    places = [str(tmp_path / "b.JPG"), str(tmp_path / "anna.png")]
    assert photos.listing(places).photos == 2
    folder = photos.fetch(places, tmp_path / "scratch")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "0000.jpg": b"b.JPG", "0001.png": b"anna.png", "0001.txt": b"anna.txt",
    }  # fmt: skip
    assert photos.fetch(str(tmp_path), tmp_path / "scratch") == tmp_path  # a folder of this machine stays where it is


def test_photos_of_an_address(tmp_path: Path) -> None:
    store = open_store("memory://shop/anna")
    store.write("a.png", b"a")
    store.write("sub/b.png", b"b")
    listing = photos.listing("memory://shop/anna")
    assert listing.photos == 2
    folder = photos.fetch("memory://shop/anna", tmp_path)
    assert [name for name, _ in photos.contents(folder)] == ["a.png", "sub/b.png"]
    photos.delete(listing.files)
    assert list(store.files("")) == []
    with pytest.raises(MaquetteError, match="no photos in memory://shop/anna"):
        photos.listing("memory://shop/anna")


# The store


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    address = {"local": str(tmp_path / "s"), "file": f"file://{tmp_path}/s", "memory": f"memory://{tmp_path.name}"}
    return open_store(address[request.param])


def test_a_store_keeps_what_it_is_given(store: Store, tmp_path: Path) -> None:
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"2")
    assert store.read("a/b.json") == b"2"
    with pytest.raises(FileExistsError):
        store.create("a/b.json", b"3")
    assert store.read("a/b.json") == b"2" and store.exclusive
    (tmp_path / "up").write_bytes(b"x" * 10)
    store.upload(tmp_path / "up", "a/c/d.bin")
    store.download("a/c/d.bin", tmp_path / "deep" / "down")
    assert (tmp_path / "deep" / "down").read_bytes() == b"x" * 10
    assert [(entry.name, entry.size) for entry in store.files("a")] == [("a/b.json", 1), ("a/c/d.bin", 10)]
    assert store.folders("a") == ["b.json", "c"] and store.folders("none") == [] and list(store.files("none")) == []
    store.remove(["a/c", "a/none"])
    assert not store.exists("a/c/d.bin") and store.exists("a/b.json")
    with pytest.raises(FileNotFoundError):
        store.read("a/none")
    for name in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(MaquetteError, match="no name of an object"):
            store.write(name, b"")


def test_of_many_writers_one_creates(tmp_path: Path) -> None:
    store, won = LocalStore(tmp_path), []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            store.create("r/result.json", str(number).encode() * 1000)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and store.read("r/result.json") == str(won[0]).encode() * 1000
    assert store.folders("r") == ["result.json"]


def test_without_hard_links_creation_is_still_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refused)
    store = LocalStore(tmp_path)
    store.create("a", b"1")
    with pytest.raises(FileExistsError):
        store.create("a", b"2")
    assert store.read("a") == b"1"


def test_a_store_that_only_looks_before_it_writes_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec import AbstractFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    assert FsspecStore("memory://x").exclusive
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", AbstractFileSystem.pipe_file)
    assert not FsspecStore("memory://x").exclusive


def test_what_a_library_raises_of_its_own_is_the_stores_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*words: Any, **more: Any) -> None:
        raise RuntimeError("503 Slow Down")

    store = FsspecStore(f"memory://{tmp_path.name}")
    for name in ("cat_file", "pipe_file", "put_file", "get_file", "exists", "find", "ls", "rm"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    (tmp_path / "a").touch()
    for ask in (
        lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.create("a", b""),
        lambda: store.upload(tmp_path / "a", "a"), lambda: store.download("a", tmp_path / "b"),
        lambda: store.exists("a"), lambda: list(store.files("a")), lambda: store.folders("a"),
        lambda: store.remove(["a"]),
    ):  # fmt: skip
        with pytest.raises(failures.StoreError, match=r"refused: RuntimeError: 503 Slow Down") as told:
            ask()
        assert failures.kind_of(told.value) == "machine"


def test_only_a_base_may_be_a_name(tmp_path: Path) -> None:
    """A folder of photos may be called as the built-in base is."""
    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "a.png").write_bytes(b"a")
    (job,) = read_jobs([Row("line 1", {"photos": "pocket", "base": "pocket", "subject": "zkw thing"})], tmp_path)
    assert isinstance(job, Job) and job.base == "pocket"
    assert json.loads(job.body)["photos"] == str(tmp_path / "pocket")


def test_an_address_that_fsspec_does_not_know() -> None:
    with pytest.raises(MaquetteError, match="nowhere://x cannot be opened"):
        open_store("nowhere://x")


def test_a_result_that_is_cut_is_none() -> None:
    assert read_result(b'{"key": "a", "sta') is None and read_result(b"[]") is None
    assert read_result(b'{"key": "a", "status": "done"}') == {"key": "a", "status": "done"}


# The schedule


def schedule(**quotas: Quota) -> Schedule:
    return Schedule(quotas, lambda: clock[0])


clock = [0.0]


def order(plan: Schedule) -> list[str]:
    found = []
    while (item := plan.next()) is not None:
        found.append(item.job.id)
    return found


def test_priority_then_share_then_deadline_then_order() -> None:
    plan = schedule()
    for one in (job("a"), job("b", deadline=5.0), job("c", priority=9), job("d", priority=0), job("e")):
        plan.add(Waiting(one, 0.0))
    assert order(plan) == ["c", "b", "a", "e", "d"]


def test_tenants_take_turns_by_their_share() -> None:
    plan = schedule(large=Quota(share=2.0))
    for number in range(6):
        plan.add(Waiting(job(f"l{number}", "large"), 0.0))
        plan.add(Waiting(job(f"s{number}", "small"), 0.0))
    first = order(plan)[:6]
    assert sum(name.startswith("l") for name in first) == 4


def test_a_tenant_who_comes_late_does_not_take_all() -> None:
    plan = schedule()
    for number in range(10):
        plan.add(Waiting(job(f"a{number}", "a"), 0.0))
    for _ in range(4):
        plan.next()
    for number in range(10):
        plan.add(Waiting(job(f"b{number}", "b"), 0.0))
    assert sum(name.startswith("b") for name in order(plan)[:6]) == 3


def test_quotas_and_delays() -> None:
    plan = schedule(poor=Quota(in_flight=1, money=1.0))
    for name in "abc":
        plan.add(Waiting(job(name, "poor"), 0.0))
    first = plan.next()
    assert first is not None and plan.next() is None
    plan.ended("poor", 1.0, 0.4)
    assert plan.next() is not None
    plan.ended("poor", 1.0, 0.7)
    assert plan.next() is None and [item.job.id for item in plan.held()] == ["c"] and plan.waiting == 0
    plan.add(Waiting(job("d"), 0.0), delay=10.0)
    assert plan.next() is None and plan.pause() == 10.0
    clock[0] = 11.0
    try:
        assert order(plan) == ["d"]
    finally:
        clock[0] = 0.0


# Failures, money, times


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MaquetteError("x"), "user"), (Diverged("x"), "nan"), (OutOfMemory("x"), "oom"), (MemoryError(), "oom"),
        (OSError(errno.ENOSPC, "x"), "machine"), (PermissionError("x"), "machine"), (RuntimeError("CUDA"), "machine"),
        (failures.StoreError("x"), "machine"), (type("OutOfMemoryError", (RuntimeError,), {})("x"), "oom"),
    ],
)  # fmt: skip
def test_kinds(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind
    outer = MaquetteError("said in other words")
    outer.__cause__ = error
    assert kind_of(outer) == ("user" if type(error) in (PermissionError, RuntimeError) else kind)


def test_pauses_double_and_are_spread() -> None:
    source = random.Random(0)
    for trial, most in ((1, 1.0), (2, 2.0), (5, 16.0), (30, 60.0)):
        found = [failures.pause(trial, source) for _ in range(50)]
        assert most / 2 <= min(found) < max(found) <= most


def test_prices_by_the_longest_name_that_fits() -> None:
    prices = {"H200": 3.5, "NVIDIA": 2.0, "cpu": 0.05}
    assert price_of("NVIDIA H200", prices) == 2.0  # "NVIDIA" is longer
    assert price_of("NVIDIA H200", {"h200": 3.5}) == 3.5
    assert price_of("cpu", prices) == 0.05 and price_of("tpu", prices) is None


def test_percentiles_by_nearest_rank() -> None:
    from array import array

    assert percentiles(array("d")) == [] and percentiles(array("d", [3.0])) == [3.0, 3.0]
    assert percentiles(array("d", range(1, 101))) == [50.0, 95.0]


def test_settings_are_checked() -> None:
    with pytest.raises(MaquetteError, match="unknown key 'quota'; did you mean 'quotas'"):
        FleetSettings.parse({"quota": {}}, "fleet.toml")
    assert FleetSettings.parse({"quotas": {"a": {"in_flight": 2}}}).quotas["a"].in_flight == 2
    assert FleetSettings.parse({"prices": {"cpu": 0.0}}).prices == {"cpu": 0.0}
    for price in (-1.0, math.nan, math.inf):
        with pytest.raises(MaquetteError, match=r"fleet\.toml: prices\.cpu"):
            FleetSettings.parse({"prices": {"cpu": price}}, "fleet.toml")


def test_signs_of_life() -> None:
    import os
    import socket

    here, now = socket.gethostname(), 1000.0
    assert claiming.alive({"host": here, "pid": os.getpid(), "beat": now - 10}, lambda: now)
    assert not claiming.alive({"host": here, "pid": 2**22 + 1, "beat": now}, lambda: now)  # more than Linux gives
    assert claiming.alive({"host": "elsewhere", "pid": 1, "beat": now - 59}, lambda: now)
    assert not claiming.alive({"host": "elsewhere", "pid": 1, "beat": now - 61}, lambda: now)


def test_packs_of_prompts() -> None:
    config = TrainConfig.parse({"photos": "x", "subject": "zkw robot", "out": "here/lora"})
    found = pack_of(config, {"prompts": ["a {subject} in snow", "x <lora:lora:1>"], "steps": 4, "out": "/etc"}, 0.7)
    assert [one["prompt"] for one in found] == ["a zkw robot in snow <lora:lora:0.7>", "x <lora:lora:1>"]
    assert found[0]["out"] == Path("here/lora/pictures") and found[0]["steps"] == 4
    with pytest.raises(MaquetteError, match="no prompts"):
        pack_of(config, {"steps": 4}, 1.0)


def test_a_cluster_that_asks_for_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from maquette.fleet.on_ray import RayExecutor

    def refused(*words: str, **more: object) -> None:
        raise ray.exceptions.AuthenticationError("InvalidAuthToken")

    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(MaquetteError, match=r"cluster at auto asks for its token: set RAY_AUTH_MODE=token"):
        RayExecutor("auto")


def test_the_driver_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, maquette.fleet.driving, maquette.fleet.worker, maquette.fleet.reporting, maquette.fleet.on_ray\n"
        "print('torch' in sys.modules, 'ray' in sys.modules, 'fsspec' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False", "False"]
    assert json.dumps(ended.stderr) == '""'


def test_a_full_disk_is_told_with_its_remedy() -> None:
    told = failures.sentence(OSError(errno.ENOSPC, "No space left on device", "/data/jobs/a"))
    assert told == "The disk is full, writing /data/jobs/a: make room and call the command again."
    assert failures.sentence(OSError(errno.EIO, "Input/output error")).startswith("OSError: ")
    assert failures.sentence(MaquetteError("a.png is damaged.")) == "a.png is damaged."
