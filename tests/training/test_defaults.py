"""The numbers of a run that nobody chose."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maquette.config import TrainConfig
from maquette.families.pocket.spec import POCKET
from maquette.families.sd.spec import SD1
from maquette.training import defaults, optim


class Photos:
    """Fourteen photos of a subject."""

    def of(self, role: str) -> list[Any]:
        return [SimpleNamespace(subject="zkw robot", caption="a photo of zkw robot")] * 14

    def samples(self, role: str) -> int:
        return 14


def resolved(spec: Any, device: str = "cpu", **chosen: Any) -> TrainConfig:
    config = TrainConfig.parse({"photos": Path("photos"), **chosen})
    base: Any = SimpleNamespace(spec=spec, device=torch.device(device), scheduler_config={})
    return defaults.resolve(config, base, Photos(), torch.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "chosen", "rate"),
    [
        (SD1, {}, 1e-4),
        (SD1, {"batch_size": 4}, 2e-4),  # the root
        (SD1, {"method": "loha"}, 5e-5),
        (SD1, {"method": "dreambooth"}, 5e-6),
        (SD1, {"method": "dreambooth", "batch_size": 4}, 1e-5),
        (SD1, {"method": "textual-inversion", "batch_size": 4}, 2e-3),
        (POCKET, {}, 2e-3),
        (POCKET, {"method": "loha"}, 1e-3),
        (POCKET, {"method": "dreambooth"}, 5e-4),
        (POCKET, {"method": "textual-inversion"}, 1e-2),
        (POCKET, {"method": "dora", "learning_rate": 7e-4}, 7e-4),
    ],
)
def test_learning_rates(spec: Any, chosen: dict[str, Any], rate: float) -> None:
    found = resolved(spec, **chosen)
    assert found.learning_rate == pytest.approx(rate)
    assert found.text_encoder_learning_rate == pytest.approx(rate / 2)


@pytest.mark.parametrize("method", ["lora", "dreambooth", "textual-inversion", "pivotal"])
@pytest.mark.parametrize("chosen", [{}, {"learning_rate": 0.5, "embedding_learning_rate": 0.1}])
def test_prodigy_finds_the_rate_of_everything_itself(method: str, chosen: dict[str, Any]) -> None:
    found = resolved(SD1, method=method, optimizer="prodigy", **chosen)
    rates = {found.learning_rate, found.text_encoder_learning_rate, found.embedding_learning_rate}
    assert rates == {chosen.get("learning_rate", 1.0)}
    pytest.importorskip("pytorch_optimizer")
    groups = {name: [torch.nn.Parameter(torch.zeros(2))] for name in ("embedding", "unet", "unet_up", "text_encoder")}
    assert {group["lr"] for group in optim.make_optimizer(found, groups).param_groups} == rates


def test_shares_of_the_steps_become_numbers_and_schedule_free_has_none() -> None:
    found = resolved(SD1, steps=1234, warmup_steps=0.05, lr_scheduler="stable-decay", decay_steps=0.5)
    assert (found.warmup_steps, found.decay_steps, found.lr_scheduler) == (61, 617, "stable-decay")
    assert isinstance(found.warmup_steps, int)
    assert resolved(SD1, epochs=10, warmup_steps=0.1).warmup_steps == 14  # of 140
    free = resolved(SD1, steps=100, warmup_steps=0.1, optimizer="schedule-free-adamw")
    assert (free.warmup_steps, free.lr_scheduler) == (0, "constant")
    own = resolved(SD1, steps=100, warmup_steps=5, optimizer="adafactor", optimizer_args={"relative_step": True})
    assert (own.warmup_steps, own.lr_scheduler) == (0, "constant")


def test_fourteen_photos_take_as_many_pictures_whatever_the_batch() -> None:
    assert (resolved(SD1).batch_size, resolved(SD1).steps) == (1, 1540)
    on_cuda = resolved(SD1, "cuda")
    assert (on_cuda.batch_size, on_cuda.steps, on_cuda.save_every_steps) == (4, 385, 97)
    assert (resolved(POCKET).batch_size, resolved(POCKET).steps) == (8, 300)
    assert resolved(SD1, epochs=3, batch_size=4).steps == 11  # 42 pictures


def test_min_snr_is_for_everything_but_words() -> None:
    gammas = {m: resolved(SD1, method=m).min_snr_gamma for m in ("lora", "dreambooth", "pivotal", "textual-inversion")}
    assert gammas == {"lora": 5.0, "dreambooth": 5.0, "pivotal": 5.0, "textual-inversion": 0.0}
    assert resolved(SD1, method="textual-inversion", min_snr_gamma=3.0).min_snr_gamma == 3.0
    assert resolved(SD1, min_snr_gamma=0).min_snr_gamma == 0.0


def test_the_run_file_says_what_pixels_are_trained() -> None:
    assert (resolved(SD1).resolution, resolved(SD1).buckets) == (512, True)
    assert (resolved(POCKET).resolution, resolved(POCKET).buckets) == (64, False)
    assert (resolved(SD1, resolution=768).resolution, resolved(SD1, buckets=False).buckets) == (768, False)
