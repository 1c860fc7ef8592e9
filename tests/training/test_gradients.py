"""What a step adds up, by hand: photos, regularization images and the held class, each with its weight."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.data.buckets import crop_box
from maquette.data.dataset import Photo
from maquette.training.batches import Batch, LatentDataset
from maquette.training.distributed import RankRows
from maquette.training.grad_scaler import GradScaler
from maquette.training.job import Job
from maquette.training.latents import EncodedPhoto
from maquette.training.objective import LossTerm
from maquette.training.prior import Prior

CAPTION = "a photo of zkw disc"
PHOTOS, REG = [1.0, 2.0, 4.0, 9.0], [10.0, 30.0]  # what each picture's latent holds


class Objective:
    """A loss that is w times what the latent holds; the drift is w times a hundred."""

    def __init__(self, w: nn.Parameter) -> None:
        self.w, self.rank_rows = w, RankRows()

    def denoising(self, batch: Batch, *_: Any) -> LossTerm:
        return LossTerm("photos", lambda x0: self.w * x0.mean((1, 2, 3)), (batch.x0,))

    def prior_loss(self, batch: Batch, *_: Any) -> LossTerm:
        return LossTerm("drift", lambda x0: self.w * 100.0 * torch.ones(len(x0)), (batch.x0,))


class PromptCache:
    def __call__(self, prompts: list[str]) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 77, 1))

    original = __call__

    def alike(self, prompts: list[str]) -> list[list[int]]:
        return [list(range(len(prompts)))]


def pictures(values: list[float], stream: str) -> LatentDataset:
    photos = [
        Photo(Path(f"{i}"), f"{i}", "0" * 64, (64, 64), CAPTION, "subject", crop=crop_box((64, 64), (64, 64)))
        for i in range(len(values))
    ]
    return LatentDataset(
        photos, [[EncodedPhoto(torch.full((4, 2, 2), v), torch.zeros(4, 2, 2))] for v in values], 0, stream
    )


def step(reg: bool = False, scale: bool = False, **settings: Any) -> tuple[float, float]:
    """Loss and gradient of a step that sees every picture once; w is 3."""
    config = TrainConfig.parse({"photos": "p", "batch_size": 4, **settings})
    w = nn.Parameter(torch.tensor(3.0))
    job = Job(
        config=config, base=SimpleNamespace(device=torch.device("cpu")), computing=None, dataset=None,  # type: ignore[arg-type]
        attached=None, optimizer=None, ema=None, objective=Objective(w), texts=PromptCache(),  # type: ignore[arg-type]
        instance=pictures(PHOTOS, "instance"), regularization=pictures(REG, "class") if reg else None,
        prior=Prior.of(config, "zkw disc", [CAPTION]), scaler=GradScaler(scale),
    )  # fmt: skip
    loss, batches = job.gradients(0)
    assert sum(len(batch) for batch in batches) == 4 and w.grad is not None
    return loss.item(), w.grad.item()


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_of_a_step_make_the_mean_of_all_photos(parts: int) -> None:
    assert step(gradient_accumulation=parts) == pytest.approx((3 * 4.0, 4.0))  # (1 + 2 + 4 + 9) / 4


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_regularization_pictures_count_with_their_weight(weight: float) -> None:
    expected = (4.0 + weight * 20.0) / 2  # 20 = (10 + 30) / 2, each seen twice; as a batch of 8 in sd-scripts
    assert step(reg=True, prior_loss_weight=weight) == pytest.approx((3 * expected, expected))


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_share_of_regularization_pictures_weighs_what_all_would(share: float) -> None:
    # the step's mean over 2 pictures, or over 1: of 10 and 30, in the order of the first epoch
    seen = pictures(REG, "class").indices(0, 4, share)
    assert len(seen) == 4 * share
    expected = (4.0 + 0.5 * sum(REG[i] for i in seen) / len(seen)) / 2
    assert step(reg=True, prior_loss_weight=0.5, prior_share=share) == pytest.approx((3 * expected, expected))


@pytest.mark.parametrize(("share", "parts"), [(1.0, 1), (0.25, 1), (0.5, 2)])
def test_the_held_class_counts_with_its_weight_whatever_its_share(share: float, parts: int) -> None:
    expected = 4.0 + 0.1 * 100.0
    settings = {"prior_preservation": True, "prior_loss_weight": 0.1, "prior_share": share}
    assert step(gradient_accumulation=parts, **settings) == pytest.approx((3 * expected, expected))


def test_the_scale_is_in_the_gradient_and_not_in_the_loss() -> None:
    loss, gradient = step(scale=True)
    assert loss == 12.0 and gradient == 4.0 * 2**16
