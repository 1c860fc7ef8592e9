"""A base as a file or a state changes it, at any weight, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import adapters
from ..adapters import embeddings
from ..adapters.embeddings import Embedding
from ..adapters.file import Adapter
from ..errors import MaquetteError
from ..families import load
from ..families.base import BaseModel
from ..sampling.apply_embeddings import apply_embeddings, vectors_of
from ..sampling.apply_loras import apply_loras

Tuned = Callable[[float], AbstractContextManager[BaseModel]]
"""weight -> the base at this weight, within the block."""

Source = str | Path | Adapter | Mapping[str, Tensor] | None
_WORD = {"emb_params", "clip_l", "clip_g"}


def tuned(base: BaseModel, source: Source, subject: str) -> Tuned:
    """What a checkpoint makes of the base. subject: the words that call an embedding.

    An adapter's change is multiplied by the weight; so is a whole model's difference from the base. An embedding has
    no weight. Raises MaquetteError for a file that is none of these or of another base.
    """
    if source is None:
        return lambda weight: nullcontext(base)
    if isinstance(source, Adapter):
        return lambda weight: _with_adapter(base, source, weight)
    if isinstance(source, Mapping):
        return _of_state(base, source, subject)
    path = Path(source)
    try:
        adapter = adapters.load(path)
    except MaquetteError as not_adapter:
        try:
            word = embeddings.load(path, name=subject)
        except MaquetteError:
            if not path.exists():
                raise
            return _of_model(base, path, not_adapter)
        return lambda weight: _with_word(base, word)
    return lambda weight: _with_adapter(base, adapter, weight)


def product_of(path: Path, subject: str) -> str:
    """What kind of file it is, as `methods.METHODS` has it: "adapter", "embedding" or, else, "model"."""
    for kind, opened in (
        ("adapter", lambda: adapters.load(path)),
        ("embedding", lambda: embeddings.load(path, subject)),
    ):
        try:
            opened()
        except MaquetteError:
            continue
        return kind
    return "model"


def _of_state(base: BaseModel, state: Mapping[str, Tensor], subject: str) -> Tuned:
    if state.keys() <= _WORD:
        word = Embedding(subject, vectors_of(dict(state)), base.spec.name)
        return lambda weight: _with_word(base, word)
    if all(key.split(".")[0] in ("unet", "te", "te1", "te2") for key in state):
        return lambda weight: _with_weights(base, state, weight)
    adapter = adapters.from_state_dict(state, {}, "the checkpoint")
    return lambda weight: _with_adapter(base, adapter, weight)


def _of_model(base: BaseModel, path: Path, not_adapter: MaquetteError) -> Tuned:
    try:
        model = load(path, device=base.device)
    except MaquetteError:
        raise not_adapter from None
    state = {f"unet.{name}": value for name, value in model.network.state_dict().items()}
    for part, encoder in zip(base.spec.text_parts, model.text_encoders, strict=False):
        state |= {f"{part}.{name}": value for name, value in encoder.state_dict().items()}
    return lambda weight: _with_weights(base, state, weight)


@contextmanager
def _with_adapter(base: BaseModel, adapter: Adapter, weight: float) -> Iterator[BaseModel]:
    with apply_loras(base, [(adapter, weight, weight)]):
        yield base


@contextmanager
def _with_word(base: BaseModel, word: Embedding) -> Iterator[BaseModel]:
    with apply_embeddings(base, [word]):
        yield base


@contextmanager
def _with_weights(base: BaseModel, state: Mapping[str, Tensor], weight: float) -> Iterator[BaseModel]:
    """W + weight (W' - W) for every weight of the state; the tensors from before are put back at the end."""
    networks: dict[str, nn.Module] = {"unet": base.network}
    networks |= dict(zip(base.spec.text_parts, base.text_encoders, strict=True))
    originals: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for part, network in networks.items():
            for name, parameter in network.named_parameters():
                value = state.get(f"{part}.{name}")
                if value is None:
                    continue
                if value.shape != parameter.shape:
                    raise MaquetteError(
                        f"The model is of another base: its {part}.{name} has the shape {tuple(value.shape)}, here it "
                        f"is {tuple(parameter.shape)}."
                    )
                originals.append((parameter, parameter.data))
                with torch.no_grad():
                    parameter.data = torch.lerp(parameter.data.float(), value.to(parameter.device).float(), weight).to(
                        parameter.dtype, memory_format=torch.preserve_format
                    )
        yield base
    finally:
        for parameter, original in originals:
            parameter.data = original
