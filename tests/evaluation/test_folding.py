"""A weight folded into a file does the same at 1."""

import pytest
import torch

from maquette import MaquetteError
from maquette.adapters.file import Adapter
from maquette.adapters.reading import from_state_dict
from maquette.evaluation.folding import folded

RANDOM = torch.Generator().manual_seed(0)
FACTORS = {
    "lora": {"lora_down.weight": (2, 6), "lora_up.weight": (8, 2)},
    "locon": {"lora_down.weight": (2, 6, 3, 3), "lora_up.weight": (8, 2, 1, 1)},
    "loha": {"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (8, 2), "hada_w2_b": (2, 6)},
    "lokr": {"lokr_w1": (2, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 3)},
}


def adapter(shapes: dict[str, tuple[int, ...]], **more: torch.Tensor) -> Adapter:
    name = "lora_unet_mid_block_attentions_0_proj_in"
    factors = {part: torch.randn(shape, generator=RANDOM) for part, shape in shapes.items()}
    state = {f"{name}.{part}": x for part, x in {**factors, "alpha": torch.tensor(1.0), **more}.items()}
    return from_state_dict(state, {}, "x.safetensors")


@pytest.mark.parametrize("kind", FACTORS)
def test_the_change_at_one_is_the_change_at_the_weight(kind: str) -> None:
    before = adapter(FACTORS[kind])
    after = folded(before, 0.7)
    (name,) = before.modules
    torch.testing.assert_close(after.delta(name), 0.7 * before.delta(name))
    assert folded(before, 1.0) is before


def test_a_dora_cannot_be_folded() -> None:
    dora = adapter(FACTORS["lora"], dora_scale=torch.ones(1, 6))
    with pytest.raises(MaquetteError, match=r"x\.safetensors cannot be folded in.*at weight 0\.7"):
        folded(dora, 0.7)
