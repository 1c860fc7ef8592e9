"""A run that is killed again and again ends in the same bytes."""

from pathlib import Path

import pytest

from maquette.config import TrainConfig
from maquette.run_folder import RunFolder
from maquette.stages import train
from tests.training.interrupted import SETTINGS, kill_often, make_photos, start


@pytest.mark.parametrize(("kills", "steps"), [(2, 30), pytest.param(30, 160, marks=pytest.mark.heavy)])
def test_killed_at_random_moments_the_final_file_is_the_same_bytes(kills: int, steps: int, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    values = {**SETTINGS, "photos": photos, "steps": steps}
    train.run(TrainConfig.parse({**values, "out": tmp_path / "whole/disc"}))
    run, settings = tmp_path / "killed/disc", tmp_path / "run.toml"
    settings.write_text(TrainConfig.parse({**values, "out": run}).to_toml())
    words = kill_often(settings, run, kills, seed=kills)
    print(f"{kills} kills, each after:", words)
    last = start(settings, run)
    _, error = last.communicate()
    assert last.returncode == 0, error
    for name in ("disc.safetensors", "disc.json", "disc.png", "metrics.jsonl", "dataset.json"):
        assert (run / name).read_bytes() == (tmp_path / "whole/disc" / name).read_bytes(), name
    assert list(RunFolder(run).checkpoints()) == [4, steps - 2, steps]
    pictures = [sorted(p.name for p in (folder / "samples").iterdir()) for folder in (run, tmp_path / "whole/disc")]
    assert pictures[0] == pictures[1] and len(pictures[0]) == steps // 2 + 2
    assert not list(run.rglob(".*.part"))


def test_what_a_kill_left_before_the_run_had_begun_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "runs/disc"
    out.mkdir(parents=True)
    (out / ".dataset.json.k1k2.part").write_text("{")
    photos = make_photos(tmp_path / "photos")
    train.run(TrainConfig.parse({**SETTINGS, "photos": photos, "steps": 1, "sample_prompts": [], "out": out}))
    assert (out / "disc.safetensors").exists() and not list(out.rglob(".*.part"))
