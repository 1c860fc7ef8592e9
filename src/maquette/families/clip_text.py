"""CLIP's text encoder, with the module names of transformers' CLIPTextModel.

Written here because importing transformers takes longer than everything else before a run's first step. Learning
Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020), section 2.4; numbers equal those of
transformers (tests/families/test_clip_text.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MaquetteError

END = 49407  # the end token of CLIP's vocabulary
_FAULTY_END = 2  # what old configuration files say instead


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation of GELU that OpenAI trained CLIP with: x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes, under the names and with the defaults of transformers' CLIPTextConfig."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = END

    @staticmethod
    def of(config: Mapping[str, Any]) -> ClipTextConfig:
        """From a configuration file's content; other keys are ignored. Raises MaquetteError for what is impossible."""
        known = {field.name for field in fields(ClipTextConfig)}
        made = ClipTextConfig(**{key: value for key, value in config.items() if key in known and value is not None})
        if made.hidden_act not in ACTIVATIONS:
            raise MaquetteError(f"A text encoder with the activation {made.hidden_act!r} is unknown.")
        if made.hidden_size % made.num_attention_heads:
            raise MaquetteError(
                f"A text encoder of width {made.hidden_size} cannot have {made.num_attention_heads} attention heads."
            )
        return made


class ClipText(nn.Module):
    """Token ids -> features after every layer, and the pooled vector."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """ids: (B, n) int64. Result: the embedding and each layer's output, (B, n, D) each and not yet normed; and the
        normed feature of the first end token, (B, D).
        """
        layers = [self.embeddings(ids)]
        for layer in self.encoder.layers:
            layers.append(layer(layers[-1]))
        end = END if self.config.eos_token_id == _FAULTY_END else self.config.eos_token_id
        ends = (ids == end).int().argmax(dim=-1)
        return layers, self.final_layer_norm(layers[-1])[torch.arange(len(ids), device=ids.device), ends]


class ClipTextWithProjection(nn.Module):
    """The same with the pooled vector projected into the space that text and pictures share, (B, P)."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = ClipText(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """As ClipText's."""
        layers, pooled = self.text_model(ids)
        return layers, self.text_projection(pooled)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[-1], device=ids.device)[None]
        return self.token_embedding(ids) + self.position_embedding(places)


class _Encoder(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class _Layer(nn.Module):
    """Pre-norm transformer layer; every token sees itself and those before it."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _Mlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.heads, width = config.num_attention_heads, config.hidden_size
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))
