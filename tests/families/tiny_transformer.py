"""A flow-matching transformer of a million parameters, as FLUX and Z-Image are: another network, 16 latent channels,
patches of 2 x 2 cells, texts with a mask and their own padding. What trains and draws it may know nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention

from maquette.core.denoiser import Conditioning
from maquette.families.base import BaseModel, FamilySpec
from maquette.families.registry import Family, register
from maquette.formats import safetensors
from maquette.formats.tokenizer import Tokenizer

WIDTH, HEADS, DEPTH, TEXT = 128, 4, 4, 96
SPEC = FamilySpec(
    "tiny-dit", "tiny_dit_v1", "tiny-dit", native_size=64, latent_factor=4, text_parts=("te",),
    latent_channels=16, patch=2,
)  # fmt: skip
SCHEDULER = {"prediction_type": "flow", "shift": 1.0}


class Attention(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.to_q, self.to_out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.to_k, self.to_v = nn.Linear(context, WIDTH), nn.Linear(context, WIDTH)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        made = (self.to_q(x), self.to_k(context), self.to_v(context))
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in made)
        y = scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None, None])
        out: Tensor = self.to_out(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Adaptive layer norm (Peebles and Xie 2212.09748), attention on the picture and on the text."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.text_attn = Attention(WIDTH), Attention(TEXT)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        scale, shift = self.modulation(time)[:, None].chunk(2, dim=-1)
        y = nn.functional.layer_norm(x, (WIDTH,)) * (1 + scale) + shift
        x = x + self.self_attn(y, y)
        x = x + self.text_attn(nn.functional.layer_norm(x, (WIDTH,)), text, mask)
        out: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(nn.functional.layer_norm(x, (WIDTH,)))))
        return out


class Transformer(nn.Module):
    """(B, 16, h, w), t in (0, 1000], (B, n, D), (B, n) -> velocity (B, 16, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.x_in, self.x_out = nn.Linear(4 * SPEC.latent_channels, WIDTH), nn.Linear(WIDTH, 4 * SPEC.latent_channels)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        cells = self.x_in(pixel_unshuffle(x, 2).flatten(2).transpose(1, 2))  # (B, h w, WIDTH)
        rows, columns = torch.arange(h * w) // w, torch.arange(h * w) % w
        cells = cells + torch.cat([_waves(rows, WIDTH // 2), _waves(columns, WIDTH // 2)], dim=-1).to(x)
        time = self.time(_waves(t, WIDTH).to(x))
        for block in self.blocks:
            cells = block(cells, time, text, mask)
        return pixel_shuffle(self.x_out(cells).transpose(1, 2).unflatten(2, (h, w)), 2)


class TextEncoder(nn.Module):
    """A table of vectors: half of each is the token's own, half that of the token before."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(49408, 4)
        self.spread = nn.Linear(8, TEXT)

    def forward(self, ids: Tensor) -> Tensor:
        own = self.embed_tokens(ids)
        out: Tensor = self.spread(torch.cat([own, own.roll(1, dims=1)], dim=-1))
        return out


class Codec(nn.Module):
    """4 x 4 pixels of three colours as 16 numbers: the projection on the coarsest of a cosine basis, and back."""

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(4.0)
        waves = (
            torch.cos(math.pi * n[:, None] * (n[None] + 0.5) / 4) * torch.where(n == 0, 0.5, math.sqrt(0.5))[:, None]
        )
        both = torch.einsum("ua,vb->uvab", waves, waves).reshape(16, 16)
        order = torch.argsort(torch.tensor([u + v for u in range(4) for v in range(4)]), stable=True)
        basis = torch.zeros(16, 3, 16)
        for channel, count in enumerate((6, 5, 5)):
            start = (0, 6, 11)[channel]
            basis[start : start + count, channel] = both[order[:count]]
        self.basis = nn.Parameter(basis.reshape(16, 48), requires_grad=False)


class TinyTransformer(BaseModel):
    """The family as the rest of the program sees it."""

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning, features=None, control=None) -> Tensor:  # type: ignore[no-untyped-def]
        dtype = next(self.network.parameters()).dtype
        mask = conditioning.others["mask"].to(torch.bool)
        made: Tensor = self.network(x_t.to(dtype), t, conditioning.tokens.to(dtype), mask)
        return made

    @property
    def token_widths(self) -> list[int]:
        return [TEXT]

    def encode_text(self, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        return self.encode_ids([torch.tensor([self.tokenizers[0].window(p) for p in prompts])], clip_skip)

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        ends = (ids[0] == self.tokenizers[0].eos).float().cumsum(1)
        tokens = self.text_encoders[0](ids[0])
        return Conditioning(tokens, others={"mask": (ends <= 1).float()}, padding=padded_with_nothing)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.vae.get_parameter("basis")
        mean = torch.einsum("cp,bphw->bchw", basis, pixel_unshuffle(pixels, 4)) / 2
        return mean, torch.zeros_like(mean)

    def decode(self, latents: Tensor) -> Tensor:
        basis = self.vae.get_parameter("basis")
        pixels = pixel_shuffle(torch.einsum("cp,bchw->bphw", basis, latents.float() * 2), 4)
        return (pixels / 2 + 0.5).clamp(0, 1)


def padded_with_nothing(name: str, x: Tensor, length: int) -> Tensor:
    """Zeros behind, which the mask (zero there too) hides."""
    return nn.functional.pad(x, (*[0, 0] * (x.ndim - 2), 0, length - x.shape[1]))


def write(folder: Path, seed: int = 0) -> Path:
    """A base of random weights."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    for name, module in (("network", Transformer()), ("text_encoder", TextEncoder())):
        safetensors.save(module.state_dict(), folder / f"{name}.tiny")
    return folder


def load(path: Path, dtype: torch.dtype, device: torch.device, network_dtype: torch.dtype) -> BaseModel:
    network, text = Transformer(), TextEncoder()
    for name, module in (("network", network), ("text_encoder", text)):
        module.load_state_dict(safetensors.load(path / f"{name}.tiny"))
        module.requires_grad_(False).eval().to(device, network_dtype if name == "network" else dtype)
    return TinyTransformer(
        spec=SPEC, network=network, vae=Codec().to(device), text_encoders=[text], tokenizers=[Tokenizer()],
        scheduler_config=dict(SCHEDULER), source=str(path), content_hash="0" * 64, vae_hash="1" * 64,
        targets={"attention": [r"(self|text)_attn\.to_(q|k|v|out)"], "feed_forward": [r"fc[12]"]},
    )  # fmt: skip


def _waves(t: Tensor, width: int) -> Tensor:
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


register(Family(SPEC, lambda path: (path / "network.tiny").is_file(), load))
