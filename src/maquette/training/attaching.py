"""Attach a run's method to the layers of the base, with their ranks, and load an initial LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from .. import adapters, methods
from ..adapters.kohya_names import written
from ..config import TrainConfig
from ..core.vocabulary import part_names, token_embedding_slot
from ..data.captions import class_of
from ..data.dataset import Dataset
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..families.trainable import targets
from ..methods.base import Attached, Slots
from ..methods.spec import spec_of
from ..sampling.apply_embeddings import initial_tokens
from . import defaults


def placeholder_of(config: TrainConfig, dataset: Dataset, captions: Sequence[str]) -> str:
    """Return the placeholder: the words that the learned vectors stand for.

    Raises MaquetteError when no caption has them.
    """
    subject = defaults.subject_of(config, dataset)
    if subject is None:
        raise MaquetteError(f"{config.method} needs the word to learn: name the subject (--subject 'ohwx man').")
    if not any(subject.lower() in caption.lower() for caption in captions):
        raise MaquetteError(f"{config.method} learns {subject!r}, but no caption says it; put it into the captions.")
    return subject


def must_reencode(config: TrainConfig, computing: BaseModel) -> Callable[[str], bool] | None:
    """Return which prompts must be encoded again at every step; None: no prompt."""
    if config.text_encoder:
        return lambda prompt: True
    if methods.METHODS[config.method].embedding:
        return lambda prompt: computing.tokenizers[0].mentions_placeholder(prompt)
    return None


def attach(config: TrainConfig, computing: BaseModel, word: str) -> Attached:
    slots = _slots(config, computing)
    begin = initial_tokens(computing, config.init_word or class_of(word)) if word else {}
    spec = replace(spec_of(config, computing.spec.name), initial_tokens=begin, name=word)
    return methods.attach(config.method, slots, spec)


def _slots(config: TrainConfig, computing: BaseModel) -> Slots:
    """Return what the method is attached to: layers, or whole networks."""
    method = methods.METHODS[config.method]
    words = (
        {
            part: token_embedding_slot(encoder)
            for part, encoder in zip(part_names(computing.text_encoders), computing.text_encoders, strict=True)
        }
        if method.embedding
        else {}
    )
    if method.product != "model":
        return {**words, **unet_slots(config, computing, config.text_encoder and method.product == "adapter")}
    networks = nn.ModuleDict({"unet": computing.network})
    if config.text_encoder:
        for part, encoder in zip(computing.spec.text_parts, computing.text_encoders, strict=True):
            networks[part] = encoder
    return {name: (networks, name) for name in networks}


def unet_slots(config: TrainConfig, base: BaseModel, text_encoder: bool = False) -> Slots:
    """The layers of the UNet, and with `text_encoder` of that too, that the method adapts."""
    layers = config.layers or methods.METHODS[config.method].layers
    return ranked(config, base.spec.name, targets(base, layers, text_encoder)) if layers else {}


def load_initial_lora(file: Path, attached: Attached) -> None:
    """Load a LoRA's factors into freshly attached ones. Raises MaquetteError saying what does not fit."""
    found, mine = adapters.load(file).state_dict(), attached.state()
    for key in sorted(found.keys() ^ mine.keys()):
        if key.endswith(".alpha") and key in mine:
            continue  # a file without alphas means alpha = rank
        why = f"has {key}, which the run does not train" if key in found else f"lacks {key}, which the run trains"
        raise MaquetteError(f"{file} cannot begin this run: it {why}. Choose the same method, layers and text_encoder.")
    for key, tensor in found.items():
        if key.endswith(".alpha") and float(tensor) != float(mine[key]):
            raise MaquetteError(f"{file} has alpha {float(tensor):g}, the run {float(mine[key]):g}; set alpha to that.")
        if key.endswith(".dora_scale") and tensor.shape[0] != mine[key].shape[0]:
            axis = "input" if tensor.shape[0] == 1 else "output"
            raise MaquetteError(f"{file} has a magnitude per {axis}; set dora_axis to that.")
        if tensor.shape != mine[key].shape:
            raise MaquetteError(
                f"{file}: {key} is {tuple(tensor.shape)}, in this run {tuple(mine[key].shape)}; "
                "give the file's rank (maquette inspect shows it)."
            )
    attached.load_state(mine | {key: tensor.float() for key, tensor in found.items()})


def ranked(config: TrainConfig, family: str, slots: Slots) -> Slots:
    """The layers but for those whose block has rank 0. Raises MaquetteError for a block without a layer to train."""
    names = {name: written(family, name) for name in slots}
    for pattern in [*config.block_ranks, *config.block_alphas]:
        if not any(pattern in name for name in names.values()):
            example = next(iter(names.values()))
            raise MaquetteError(f"No layer to train has {pattern!r} in its name (they are called {example} and so on).")
    spec = spec_of(config)
    return {name: slot for name, slot in slots.items() if spec.block_rank(names[name]) != 0}
