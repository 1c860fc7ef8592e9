"""The text encoder against transformers', from which its names and numbers come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from maquette.errors import MaquetteError
from maquette.families.clip_text import END, ClipTextConfig
from maquette.families.modules import build_text_encoder, fill

SIZES = {"vocab_size": 49408, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "projection_dim": 24}


def ids() -> torch.Tensor:
    """Three windows of 77: start, some tokens, the end token, then either padding."""
    found = torch.randint(0, 40000, (3, 77), generator=torch.Generator().manual_seed(0))
    found[:, 0] = END - 1
    for row, length in enumerate((5, 40, 77)):
        found[row, length - 1 :] = END
    found[1, 40:] = 0
    return found


@pytest.mark.parametrize("end", [END, 2])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("projection", [False, True])
def test_numbers_equal_those_of_transformers(projection: bool, activation: str, end: int) -> None:
    config: dict[str, Any] = {**SIZES, "num_attention_heads": 4, "hidden_act": activation, "eos_token_id": end}
    torch.manual_seed(0)
    theirs = (CLIPTextModelWithProjection if projection else CLIPTextModel)(CLIPTextConfig(**config)).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(0, 0.3)
    state = {name: value for name, value in theirs.state_dict().items() if not name.endswith("position_ids")}
    ours = fill(build_text_encoder(config, projection), state, "x", torch.float32, "cpu")
    layers, pooled = ours(ids())
    told = theirs(input_ids=ids(), output_hidden_states=True)
    assert len(layers) == len(told.hidden_states) == 4
    for mine, other in zip(layers, told.hidden_states, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooled, told.text_embeds if projection else told.pooler_output, rtol=1e-5, atol=1e-5)


def test_defaults_are_those_of_transformers() -> None:
    ours, theirs = ClipTextConfig(), CLIPTextConfig()
    assert {key: getattr(theirs, key) for key in vars(ours)} == vars(ours)


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(MaquetteError, match="the activation 'relu7' is unknown"):
        build_text_encoder({**SIZES, "hidden_act": "relu7"})
    with pytest.raises(MaquetteError, match="width 32 cannot have 5 attention heads"):
        build_text_encoder({**SIZES, "num_attention_heads": 5})
