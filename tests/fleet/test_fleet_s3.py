"""A root at S3: what the store promises, and a fleet on it. The server is moto's, whose races prove nothing: it looks
first and writes then, so all here comes one after another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from maquette.config.fleet import FleetConfig
from maquette.fleet import driving, keeping, planning, reporting
from maquette.fleet.store import Store, open_store

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def root(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A bucket of its own, which workers reach too."""
    for name, value in (
        ("AWS_ENDPOINT_URL", server), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"), ("NO_PROXY", "127.0.0.1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"shop-{abs(hash(str(tmp_path)))}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/fleet"


def test_what_is_there_is_not_created_again(root: str, tmp_path: Path) -> None:
    store: Store = open_store(root)
    assert store.exclusive
    store.create("a/result.json", b"first")
    with pytest.raises(FileExistsError):
        store.create("a/result.json", b"second")
    assert store.read("a/result.json") == b"first"
    store.write("a/claim.json", b"1")
    store.write("a/claim.json", b"22")
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    store.upload(tmp_path / "big", "a/lora.safetensors")
    store.download("a/lora.safetensors", tmp_path / "back" / "big")
    assert (tmp_path / "back" / "big").read_bytes() == b"x" * 100_000
    found = {entry.name: entry.size for entry in store.files("a")}
    assert found == {"a/claim.json": 2, "a/lora.safetensors": 100_000, "a/result.json": 5}
    assert all(entry.changed > 1.6e9 for entry in store.files("a"))
    assert store.folders("") == ["a"] and store.folders("nowhere") == [] and store.exists("a/result.json")
    store.remove(["a/claim.json", "a/claim.json", "nowhere"])
    assert not store.exists("a/claim.json")
    with pytest.raises(FileNotFoundError):
        store.read("a/claim.json")
    store.remove(["a"])
    assert list(store.files("")) == []


def test_a_fleet(root: str, tmp_path: Path, write_jobs: Callable[..., Path]) -> None:
    """Photos too lie there; plan, run, status, retry and gc."""
    photos = open_store(root.replace("/fleet", "/photos"))
    photos.write("anna/a.png", b"anna")
    photos.write("anna/a.txt", b"a caption")
    jobs = write_jobs(
        {}, {"id": "anna", "photos": root.replace("/fleet", "/photos/anna")}, {"id": "bad", "subject": "nan thing"},
        {"id": "gone", "photos": root.replace("/fleet", "/photos/gone")},
    )  # fmt: skip
    config = FleetConfig(jobs=jobs, root=root)
    assert (planning.plan(config).new, planning.plan(config).invalid) == (3, 1)
    ended = driving.run(config, trainer="fleet_fakes:FakeTrainer")
    assert (ended.done, ended.failed, ended.invalid, ended.attempts) == (2, 1, 1, 3), ended.problems
    again = driving.run(config, trainer="fleet_fakes:FakeTrainer")
    assert (again.committed, again.known) == (0, 3)
    told = reporting.status(FleetConfig(root=root))
    assert (told.done, told.failed, told.by_kind) == (2, 1, {"nan": 1})
    store = open_store(root)
    results = [json.loads(store.read(entry.name)) for entry in store.files("runs") if "result.json" in entry.name]
    names = {entry.name for entry in store.files("runs")}
    for result in results:
        place = f"runs/default/{result['key'][:2]}/{result['key']}/attempts/{result['attempt']}"
        assert all(f"{place}/{file}" in names for file in result["files"])
    assert not [name for name in names if "claim" in name]
    assert keeping.gc(FleetConfig(root=root)).names == []
    assert keeping.retry(FleetConfig(root=root, failed="nan")).names == ["bad"]
    assert planning.plan(config).new == 1
