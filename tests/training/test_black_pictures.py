"""Numbers that are not finite in a base, a LoRA or a picture: the file is named, and nothing black is called saved."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families import checkpoint
from maquette.families.pocket.spec import POCKET, WEIGHTS
from maquette.families.save import write_single_file
from maquette.formats import safetensors
from maquette.run_folder import RunFolder
from maquette.sampling import prompt_pictures
from maquette.stages import train
from maquette.training import state
from tests.training.interrupted import SETTINGS, make_photos

VALUES: dict[str, Any] = {**SETTINGS, "steps": 2, "keep_last": 0, "keep_steps": [], "sample_prompts": []}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("black") / "photos")


def poisoned(path: Path, part: str) -> Path:
    """Pocket as one file with a NaN in a network."""
    model = checkpoint.read_folder(WEIGHTS, POCKET)
    ends = ("encoder.conv_in.weight", "mlp.fc1.weight") if part != "unet" else ("conv_in.weight",)
    name = next(name for name in model.parts[part] if name.endswith(ends))
    model.parts[part][name] = model.parts[part][name].clone()
    model.parts[part][name].view(-1)[0] = float("nan")
    write_single_file(model, path, torch.float32)
    return path


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_base_that_is_not_finite_is_named_before_anything_is_learned(part: str, photos: Path, tmp_path: Path) -> None:
    base = poisoned(tmp_path / "bad.safetensors", part)
    values = {**VALUES, "photos": photos, "base": str(base), "out": tmp_path / "disc"}
    with pytest.raises(MaquetteError, match=rf"{base} has NaN or infinite numbers \(.*\): the file is damaged"):
        train.run(TrainConfig.parse(values))
    assert not list((tmp_path / "disc").rglob("*.safetensors"))


def test_a_lora_that_is_not_finite_is_no_beginning(photos: Path, tmp_path: Path) -> None:
    values = {**VALUES, "photos": photos, "steps": 1}
    made = train.run(TrainConfig.parse({**values, "out": tmp_path / "disc"})).file
    assert made
    tensors = {name: tensor.clone() for name, tensor in safetensors.load(made).items()}
    next(iter(tensors.values())).fill_(float("nan"))
    safetensors.save(tensors, tmp_path / "nan.safetensors", safetensors.read_metadata(made))
    with pytest.raises(MaquetteError, match=r"nan\.safetensors"):
        train.run(TrainConfig.parse({**values, "from_lora": tmp_path / "nan.safetensors", "out": tmp_path / "b"}))


def test_sample_pictures_that_are_not_finite_are_told_and_not_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_pictures, "sample", lambda base, *_, **__: torch.full((1, 4, 16, 16), float("nan")))
    events: list[Event] = []
    values = {**VALUES, "photos": photos, "sample_prompts": ["a photo of zkw disc"], "out": tmp_path / "disc"}
    assert train.run(TrainConfig.parse(values), events.append).status == "finished"
    told = [event.data["message"] for event in events if event.kind == "warning"]
    assert told[0].startswith("No sample pictures of the base were drawn: The numbers became infinite")
    assert told[1].startswith("No sample pictures of step 2 were drawn: ")
    assert not list((tmp_path / "disc").rglob("*.png")) and not [e for e in events if e.kind == "sample"]


def test_weights_beyond_their_type_are_not_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maquette.training.job import Job

    real = Job.state

    def grown(self: Job) -> dict[str, torch.Tensor]:
        return {name: tensor * (1e6 if "lora_down" in name else 1.0) for name, tensor in real(self).items()}

    monkeypatch.setattr(Job, "state", grown)
    run = tmp_path / "disc"
    with pytest.raises(MaquetteError, match=rf"At step 2 .* beyond what fp16 .*--resume {run} --set save_dtype=bf16"):
        train.run(TrainConfig.parse({**VALUES, "photos": photos, "out": run}))
    assert not list(run.rglob("checkpoints/*.safetensors"))
    found = state.latest(RunFolder(run))
    assert found is not None and found[0] == 2
    done = train.resume(run, {"save_dtype": "bf16"})  # as the sentence says
    assert done.status == "finished" and done.file and done.checkpoints
    assert all(bool(tensor.isfinite().all()) for tensor in safetensors.load(done.file).values())
