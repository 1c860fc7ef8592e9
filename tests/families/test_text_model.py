"""Our CLIP text encoder against transformers': every layer, the pooled vector, gradients, names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.core.vocabulary import ExtendedEmbedding
from maquette.errors import MaquetteError
from maquette.families import full_size, modules
from maquette.families.clip.text_model import CLIPTextModel, CLIPTextModelWithProjection

WORDS = 200
NARROW: dict[str, dict[str, Any]] = {
    "clip-l": {"hidden_size": 48, "num_attention_heads": 3, "hidden_act": "quick_gelu", "num_hidden_layers": 4},
    "clip-h": {"hidden_size": 64, "num_attention_heads": 1, "hidden_act": "gelu", "num_hidden_layers": 5},
    "clip-g": {"hidden_size": 64, "num_attention_heads": 4, "hidden_act": "gelu", "projection_dim": 24},
    "old end token": {"hidden_size": 32, "num_attention_heads": 2, "eos_token_id": 2, "layer_norm_eps": 1e-3},
}


def pair(name: str, projection: bool, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Ours and transformers' with the same random weights, biases and norms too."""
    from transformers import CLIPTextConfig
    from transformers import CLIPTextModel as Theirs
    from transformers import CLIPTextModelWithProjection as TheirsProjected

    config = {"vocab_size": WORDS, "intermediate_size": 80, "num_hidden_layers": 3, "eos_token_id": WORDS - 1}
    config |= NARROW[name]
    torch.manual_seed(0)
    theirs = (TheirsProjected if projection else Theirs)(CLIPTextConfig(**config))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    theirs.to(dtype).eval()
    ours = modules.build_text_encoder(config, projection)
    weights = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    modules.fill(ours, weights, "random", dtype, "cpu")
    return ours.requires_grad_(True), theirs


def windows(seed: int = 1) -> Tensor:
    """(3, 77): an end token in the middle and padding of end tokens, of zeros, and none of it."""
    ids = torch.randint(3, WORDS - 1, (3, 77), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = WORDS - 2
    ids[0, 9:] = ids[1, 20] = ids[2, 76] = WORDS - 1
    ids[1, 21:] = 0
    return ids


@pytest.mark.parametrize("projection", [False, True], ids=["plain", "projection"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_every_layer_and_the_pooled_vector_equal_transformers_to_the_bit(
    name: str, dtype: torch.dtype, projection: bool
) -> None:
    ours, theirs = pair(name, projection, dtype)
    with torch.no_grad():
        hidden_states, pooled = ours(windows())
        expected = theirs(windows(), output_hidden_states=True)
        assert len(hidden_states) == len(expected.hidden_states) == 1 + theirs.config.num_hidden_layers
        assert all(torch.equal(a, b) for a, b in zip(hidden_states, expected.hidden_states, strict=True))
        assert torch.equal(pooled, expected.text_embeds if projection else expected.pooler_output)
        assert torch.equal(ours.final_layer_norm(hidden_states[-1]), expected.last_hidden_state)
    assert hidden_states[0].dtype == pooled.dtype == dtype


@pytest.mark.parametrize("projection", [False, True], ids=["plain", "projection"])
@pytest.mark.parametrize("dtype, least", [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NARROW)
def test_all_gradients_equal_transformers(name: str, dtype: torch.dtype, least: float, projection: bool) -> None:
    ours, theirs = pair(name, projection, dtype)
    hidden_states, pooled = ours(windows())
    expected = theirs(windows(), output_hidden_states=True)
    (hidden_states[-2].sin().sum() + pooled.sin().sum()).backward()
    told = expected.text_embeds if projection else expected.pooler_output
    (expected.hidden_states[-2].sin().sum() + told.sin().sum()).backward()
    wanted = dict(theirs.named_parameters())
    assert dict(ours.named_parameters()).keys() == wanted.keys()
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None and wanted[key].grad.abs().max() > 0, key
        if key.endswith("k_proj.bias"):  # shifts all scores of a row alike: its gradient is rounding alone
            largest = wanted[key.replace("bias", "weight")].grad.abs().max()
            assert parameter.grad.abs().max() <= least * largest, key
            continue
        assert (parameter.grad - wanted[key].grad).abs().max() <= least * wanted[key].grad.abs().max(), key


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
@pytest.mark.parametrize("projection", [False, True], ids=["plain", "projection"])
def test_clip_skip_takes_an_earlier_layer_with_or_without_the_norm(clip_skip: int, projection: bool) -> None:
    ours, theirs = pair("clip-l", projection, torch.float32)
    norm = (theirs.text_model if projection else theirs).final_layer_norm
    with torch.no_grad():
        expected = theirs(windows(), output_hidden_states=True).hidden_states[-clip_skip]
        found = ours(windows()).hidden_states[-clip_skip]
        assert torch.equal(ours.final_layer_norm(found), norm(expected))
        assert torch.equal(found, expected)


def test_a_token_never_sees_those_behind_it() -> None:
    ours, _ = pair("clip-h", False, torch.float64)
    ids, other = windows(), windows()
    other[:, 40] = 5
    before, after = ours(ids).hidden_states[-1], ours(other).hidden_states[-1]
    assert torch.equal(before[:, :40], after[:, :40]) and not torch.equal(before[:, 40:], after[:, 40:])


def test_the_end_token_of_old_configurations_is_found_behind_words_of_ones_own() -> None:
    """Those words have numbers above the vocabulary; transformers takes the highest number of all for the end."""
    ours, _ = pair("old end token", False, torch.float64)
    table = ExtendedEmbedding(ours.embeddings.token_embedding, nn.Parameter(torch.randn(2, 32)))
    ours.embeddings.token_embedding = table
    ids = windows()
    ids[:, 3:5] = torch.tensor([WORDS, WORDS + 1])
    ours(ids).pooled.sum().backward()
    assert table.vectors.grad.abs().max() > 0
    hidden_states, pooled = ours(ids)
    ends = torch.tensor([9, 20, 76])
    assert torch.equal(pooled, ours.final_layer_norm(hidden_states[-1])[torch.arange(3), ends])


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_names_and_shapes_at_full_size_are_those_of_transformers(family: str) -> None:
    from transformers import CLIPTextConfig
    from transformers import CLIPTextModel as Theirs
    from transformers import CLIPTextModelWithProjection as TheirsProjected

    found = {part: network for part, network in full_size.networks(family).items() if part.startswith("te")}
    assert len(found) == (2 if family == "sdxl" else 1)
    for part, network in found.items():
        assert type(network) is (CLIPTextModelWithProjection if part == "te2" else CLIPTextModel)
        with torch.device("meta"):
            theirs = (TheirsProjected if part == "te2" else Theirs)(CLIPTextConfig(**network.config))
        expected = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
        assert {key: tensor.shape for key, tensor in network.state_dict().items()} == expected
        paths = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        assert paths == [path for path, module in theirs.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (
            {"hidden_act": "gelu_new"},
            "text encoder says hidden_act = 'gelu_new'; maquette knows 'quick_gelu' and 'gelu'",
        ),
        ({"hidden_size": 50}, "divides 50 channels among 8 heads"),
    ],
)
def test_configurations_that_no_clip_has_are_named(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MaquetteError, match=sentence):
        modules.build_text_encoder(wrong)


def test_too_long_windows_are_named() -> None:
    ours, _ = pair("clip-l", False, torch.float32)
    with pytest.raises(MaquetteError, match="reads 77 tokens at once, not 78"):
        ours(torch.zeros(1, 78, dtype=torch.int64))
