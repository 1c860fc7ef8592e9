"""Controls: what a checkpoint must score of which it is known what is wrong with it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.adapters.file import Adapter
from maquette.adapters.reading import from_state_dict
from maquette.adapters.reading import load as load_adapter
from maquette.config import TrainConfig
from maquette.demo.mascot import SUBJECT, write_photos
from maquette.evaluation import Example, Panel, build_panel, measure
from maquette.evaluation.choice import faults, score
from maquette.evaluation.measures import measure_items
from maquette.evaluation.panel import QUICK
from maquette.evaluation.verdict import losses_over_base
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.stages import train


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("pocket")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "robot"
    write_photos(folder)
    return folder


def examples(folder: Path) -> list[Example]:
    found = []
    for path in sorted(folder.glob("*.png")):
        image = Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 127.5 - 1
        found.append(Example(pixels, path.with_suffix(".txt").read_text().strip(), path.name))
    return found


@pytest.fixture(scope="module")
def panel(base: BaseModel, photos: Path) -> Panel:
    return build_panel(base, examples(photos), SUBJECT, size=QUICK)


def test_the_base_itself_has_no_benefit_and_no_fault(base: BaseModel, panel: Panel) -> None:
    """What a learning rate of 0 leaves."""
    values = measure(base, None, 1.0, panel)
    assert abs(values["benefit"]) < 0.05
    assert values["drift"] == values["neighbour_drift"] == values["leak"] == 0.0
    assert values["edit_retention"] == pytest.approx(1.0, abs=0.1)
    assert values["neighbours_margin"] == pytest.approx(1.0, abs=1e-3)
    assert abs(values["likeness"]) < 0.4
    assert {fault.measure for fault in faults(values)} <= {"copying"}
    good = {**values, "benefit": 0.4, "likeness": 0.9}
    assert score(values) < 0.5 * score(good)


def test_measuring_twice_gives_the_same_and_leaves_the_base_as_it_was(base: BaseModel, panel: Panel) -> None:
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    lora = random_lora(base, 0.02)
    first = measure_items(base, lora, 0.7, panel, drawings=False)
    assert measure_items(base, lora, 0.7, panel, drawings=False) == first
    assert all(torch.equal(before[name], value) for name, value in base.unet.state_dict().items())
    assert len(first["benefit"]) == len(panel.names) == 14 and len(first["leak"]) == QUICK.probed * QUICK.timesteps


def random_lora(base: BaseModel, size: float, rank: int = 4) -> Adapter:
    """A LoRA that learned nothing: each change as long as `size` times the weight."""
    generator, state = torch.Generator().manual_seed(0), {}
    for path, module in base.unet.named_modules():
        if path.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            weight: Any = module.weight
            down = torch.randn(rank, weight.shape[1], generator=generator)
            up = torch.randn(weight.shape[0], rank, generator=generator)
            up *= size * weight.norm() / (up @ down).norm()
            name = f"lora_unet_{path.replace('.', '_')}"
            state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return from_state_dict(state, {}, "random")


def test_a_random_lora_makes_things_worse(base: BaseModel, panel: Panel) -> None:
    values = measure(base, random_lora(base, 0.5), 1.0, panel, drawings=False)
    assert values["benefit"] < 0.0
    assert values["neighbour_drift"] > 0.05
    weaker = measure(base, random_lora(base, 0.5), 0.5, panel, drawings=False)
    assert weaker["neighbour_drift"] < values["neighbour_drift"]


def test_a_file_that_diverged_is_measured_as_bad_and_does_not_end_the_choice(base: BaseModel, panel: Panel) -> None:
    values = measure(base, random_lora(base, 1e30), 1.0, panel)
    assert all(np.isfinite(value) for value in values.values())
    assert values["benefit"] < 0.0 and {"edit_retention", "neighbour_drift"} <= {one.measure for one in faults(values)}


def test_a_learning_rate_of_nothing_learns_nothing(base: BaseModel, photos: Path, panel: Panel, tmp_path: Path) -> None:
    """A file that a training wrote, but in which nothing has moved: benefit 0, and nothing to be blamed for."""
    file = trained(photos, tmp_path / "still", steps=1, learning_rate=1e-12)
    values, nothing = (measure(base, source, 1.0, panel, drawings=False) for source in (file, None))
    assert values == pytest.approx(nothing, abs=1e-4)
    assert abs(values["benefit"]) < 0.05
    assert faults(values) == []


def like(file: Path) -> Adapter:
    """A random LoRA on the same layers, whose every change is as long as the file's."""
    learned, generator, state = load_adapter(file), torch.Generator().manual_seed(0), {}
    for name, module in learned.modules.items():
        down, up = (
            torch.randn(module.factors[f"lora_{part}.weight"].shape, generator=generator) for part in ("down", "up")
        )
        up *= float(learned.delta(name).norm()) / float((up.flatten(1) @ down.flatten(1)).norm())
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return from_state_dict(state, {}, "random")


def trained(photos: Path, out: Path, **changes: Any) -> Path:
    settings = {
        "photos": photos, "subject": SUBJECT, "out": out, "steps": 100, "batch_size": 4, "learning_rate": 4e-3,
        "lr_scheduler": "constant", "sample_prompts": [], "rank": 8, "choose": False,
    }  # fmt: skip
    result = train.run(TrainConfig.parse({**settings, **changes}))
    assert result.file is not None
    return Path(result.file)


@pytest.mark.heavy
def test_one_photo_ten_times_makes_copies(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    files = sorted(photos.glob("*.png"))
    for number, source in enumerate([files[0]] * 10 + files[1:5]):
        shutil.copy(source, folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"a photo of {SUBJECT}")
    file = trained(folder, tmp_path / "run", learning_rate=8e-3)
    panel = build_panel(base, examples(folder), SUBJECT, size=QUICK)
    before, after = measure(base, None, 1.0, panel), measure(base, file, 1.0, panel)
    assert after["copying"] > before["copying"]
    assert "copying" in {fault.measure for fault in faults(after)}


@pytest.mark.heavy
def test_of_equal_norm_random_is_worse_shuffled_captions_cost_retention_and_a_prior_keeps_the_class(
    base: BaseModel, photos: Path, panel: Panel, tmp_path: Path
) -> None:
    file = trained(photos, tmp_path / "plain")
    plain = measure(base, file, 1.0, panel, drawings=False)
    assert plain["benefit"] > 0.1
    random_one, nothing = (measure(base, source, 1.0, panel, drawings=False) for source in (like(file), None))
    assert random_one["benefit"] < nothing["benefit"] - 0.002  # of equal norm; what no training at all has is the zero
    shuffled = tmp_path / "shuffled"
    shutil.copytree(photos, shuffled)
    texts = sorted(shuffled.glob("*.txt"))
    captions = [path.read_text() for path in texts]
    random.Random(1).shuffle(captions)
    for path, caption in zip(texts, captions, strict=True):
        path.write_text(caption)
    wrong = measure(base, trained(shuffled, tmp_path / "wrong"), 1.0, panel, drawings=False)
    assert wrong["edit_retention"] < plain["edit_retention"] - 0.05
    kept = measure(base, trained(photos, tmp_path / "kept", prior_preservation=True), 1.0, panel, drawings=False)
    assert kept["drift"] < 0.7 * plain["drift"]
    assert kept["leak"] < 0.7 * plain["leak"]


@pytest.mark.heavy
def test_a_planted_photo_of_something_else_stays_hard(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    texts = sorted(folder.glob("*.txt"))
    planted = texts[4].with_suffix(".png").name
    random_state = np.random.default_rng(0)
    blocks = random_state.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(blocks).save(folder / planted)
    file = trained(folder, tmp_path / "run", steps=40)
    panel = build_panel(base, examples(folder), SUBJECT, size=QUICK)
    items = measure_items(base, file, 1.0, panel, drawings=False)
    loss = losses_over_base(panel, [items])
    assert panel.names[int(loss.argmax())] == planted
