"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020, section 2.4): a transformer that reads left to right.

The same code is CLIP ViT-L (SD1, SDXL's first), OpenCLIP ViT-H (SD2) and OpenCLIP ViT-bigG (SDXL's second); they differ
in their configuration only. Shapes on the right: B windows of n tokens (77), D channels, h heads of d = D / h channels,
F channels inside the feed-forward part, P channels of the space that texts and pictures share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MaquetteError
from ..architecture import Config, complete

DEFAULTS: dict[str, Any] = {  # those of config.json: keys that are missing there have these values
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
LEGACY_EOS = 2  # what old configurations call the end token, whose number is 49407


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's CLIP: x sigma(1.702 x), near to GELU (arXiv 1606.08415, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Embeddings(nn.Module):
    """A vector for each token and one for its place."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, n) int64 -> (B, n, D)."""
        tokens = self.token_embedding(ids)  # (B, n, D)
        places = self.position_embedding.weight[: ids.shape[1]]  # (n, D)
        result: Tensor = tokens + places  # (B, n, D)
        return result


class Attention(nn.Module):
    """Self-attention with several heads (arXiv 1706.03762, section 3.2): a token sees itself and those before it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        q = self._split(self.q_proj(x))  # (B, h, n, d)
        k = self._split(self.k_proj(x))  # (B, h, n, d)
        v = self._split(self.v_proj(x))  # (B, h, n, d)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, h, n, d)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))  # (B, n, D)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, h, n, d)."""
        result: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return result


class MLP(nn.Module):
    """The feed-forward part, each token by itself."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        x = self.activation(self.fc1(x))  # (B, n, F)
        x = self.fc2(x)  # (B, n, D)
        return x


class EncoderLayer(nn.Module):
    """A residual block with its norms in front, as GPT-2's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        x = x + self.self_attn(self.layer_norm1(x))  # (B, n, D)
        x = x + self.mlp(self.layer_norm2(x))  # (B, n, D)
        return x


class Encoder(nn.Module):
    """All layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, n, D) -> that and what each layer makes of it, (B, n, D) each."""
        made = [x]
        for layer in self.layers:
            made.append(layer(made[-1]))  # (B, n, D)
        return made


class TextFeatures(NamedTuple):
    """What a text encoder makes of B windows.

    hidden_states: (B, n, D) each, the embeddings and every layer's output; none of them has had the final norm.
    pooled: (B, D), the last layer's features of the end token after the final norm; (B, P) with a projection.
    """

    hidden_states: list[Tensor]
    pooled: Tensor


class CLIPTextModel(nn.Module):
    """The text encoder without projection, its parameters named as transformers 5 names them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises MaquetteError for a configuration that no CLIP has."""
        super().__init__()
        self.config = _complete(config)
        self.embeddings = Embeddings(self.config)
        self.encoder = Encoder(self.config)
        self.final_layer_norm = nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)

    def forward(self, ids: Tensor) -> TextFeatures:
        """(B, n) int64. Raises MaquetteError for windows that are longer than the encoder was trained with."""
        if ids.shape[1] > self.config.max_position_embeddings:
            longest = self.config.max_position_embeddings
            raise MaquetteError(f"The text encoder reads {longest} tokens at once, not {ids.shape[1]}.")
        ids = ids.to(self.embeddings.position_embedding.weight.device)
        hidden_states = self.encoder(self.embeddings(ids))  # layers + 1 times (B, n, D)
        last = self.final_layer_norm(hidden_states[-1])  # (B, n, D)
        pooled = last[torch.arange(len(ids), device=ids.device), self._ends(ids)]  # (B, D)
        return TextFeatures(hidden_states, pooled)

    def _ends(self, ids: Tensor) -> Tensor:
        """(B, n) -> (B,), the first end token's place; where old configurations hide its number, that of the highest
        number in the vocabulary. Words of one's own have higher numbers.
        """
        if self.config.eos_token_id == LEGACY_EOS:
            return ids.where(ids < self.config.vocab_size, -1).argmax(dim=-1)  # (B,)
        result: Tensor = (ids == self.config.eos_token_id).int().argmax(dim=-1)
        return result


class CLIPTextModelWithProjection(nn.Module):
    """The text encoder, its pooled vector projected into the space that texts and pictures share."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises MaquetteError for a configuration that no CLIP has."""
        super().__init__()
        self.text_model = CLIPTextModel(config)
        self.config = self.text_model.config
        self.text_projection = nn.Linear(self.config.hidden_size, self.config.projection_dim, bias=False)

    @property
    def final_layer_norm(self) -> nn.Module:
        return self.text_model.final_layer_norm

    def forward(self, ids: Tensor) -> TextFeatures:
        """(B, n) int64. Raises MaquetteError as the model without projection."""
        hidden_states, pooled = self.text_model(ids)  # (B, n, D) each, (B, D)
        return TextFeatures(hidden_states, self.text_projection(pooled))  # (B, P)


def _complete(config: Mapping[str, Any]) -> Config:
    complete_config = complete(config, DEFAULTS, {"hidden_act": tuple(ACTIVATIONS)}, "text encoder")
    width, heads = complete_config.hidden_size, complete_config.num_attention_heads
    if width % heads:
        raise MaquetteError(f"The configuration of the text encoder divides {width} channels among {heads} heads.")
    return complete_config
