"""No black pictures: numbers that are not finite end in an error that names the file they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..adapters.embeddings import Embedding
from ..adapters.file import Adapter
from ..errors import MaquetteError
from ..families.base import BaseModel


class NotFiniteError(MaquetteError):
    """A picture's numbers are NaN or infinite. The sentence names the file at fault."""


def require_finite_picture(
    pixels: Tensor, base: BaseModel, adapters: Sequence[Adapter] = (), embeddings: Sequence[Embedding] = ()
) -> None:
    """Raise NotFiniteError when pixels or latents are not all finite. Only then is the file at fault looked for.

    adapters, embeddings: what is applied to the base now. Where it can be, call `fault` again after they are taken out:
    only then a base's own numbers can be told from an adapter's.
    """
    if not bool(torch.isfinite(pixels).all()):
        raise NotFiniteError(fault(base, adapters, embeddings))


def fault(base: BaseModel, adapters: Sequence[Adapter] = (), embeddings: Sequence[Embedding] = ()) -> str:
    """One sentence on why a picture of a base was not finite, with the file to replace or what to change."""
    for adapter in adapters:
        factors = {f"{name}.{part}": x for name, m in adapter.modules.items() for part, x in m.factors.items()}
        if key := _first_odd(factors.items()):
            return f"{adapter.source} has NaN or infinite numbers ({key}): {_REPLACE}."
    for embedding in [*embeddings, *(word for adapter in adapters for word in adapter.embeddings)]:
        if _first_odd((str(i), vectors) for i, vectors in enumerate(embedding.vectors)):
            return f"The embedding {embedding.name} has NaN or infinite numbers: {_REPLACE}."
    return damage(base) or _too_large(base, adapters)


def damage(base: BaseModel) -> str | None:
    """A sentence on the file of a base whose weights are not all finite; None for a sound one."""
    for module, source in _parts(base).items():
        if key := _first_odd(module.state_dict().items()):
            return f"{source} has NaN or infinite numbers ({key}): {_REPLACE}."
    return None


_REPLACE = "the file is damaged or its training failed, so that pictures become black; take another one"


def _parts(base: BaseModel) -> Mapping[nn.Module, str]:
    """Each network and the file it comes from."""
    own = [base.network, *base.text_encoders]
    return {module: base.source for module in own} | {base.vae: base.vae_source or base.source}


def _first_odd(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    return next((key for key, x in tensors if x.is_floating_point() and not bool(torch.isfinite(x).all())), None)


def _too_large(base: BaseModel, adapters: Sequence[Adapter]) -> str:
    """Every file is sound: the arithmetic went beyond what its numbers can hold."""
    dtype = next(base.network.parameters()).dtype
    loras = f" with {', '.join(dict.fromkeys(adapter.source for adapter in adapters))}" if adapters else ""
    remedy = "lower the multipliers of LoRAs, the weights in brackets and the guidance"
    if dtype == torch.float16:
        remedy = f"give the dtype bf16 or fp32, or a VAE made for fp16; or {remedy}"
    return f"The numbers became infinite while {base.source}{loras} was drawing in {str(dtype)[6:]}: {remedy}."
