"""Checkpoints as complete adapter files, with the metadata that other programs show and sort by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import methods
from ..adapters import embeddings
from ..adapters.embeddings import Embedding
from ..adapters.reading import from_state_dict
from ..adapters.reading import load as load_adapter
from ..config import TrainConfig
from ..core.dtypes import DTYPES
from ..data.dataset import Dataset
from ..families.base import BaseModel
from ..families.loading import find, load
from ..families.save import write_single_file
from ..files import write_json
from ..report.run_page import WEIGHT
from ..sampling.apply_embeddings import apply_embeddings, vectors_of
from ..sampling.apply_loras import apply_loras
from .defaults import subject_of
from .metadata import Facts


def checkpoint_writer(config: TrainConfig, base: BaseModel, dataset: Dataset) -> CheckpointWriter:
    """Return the writer of the files that the run's method makes."""
    kinds = {"adapter": CheckpointWriter, "model": ModelWriter, "embedding": EmbeddingWriter}
    return kinds[methods.METHODS[config.method].product](config, base, dataset)


def waits(network: torch.nn.Module) -> bool:
    """Whether a network of a model on another device lies in the computer's memory meanwhile."""
    return next(network.parameters()).device.type == "cpu"


@dataclass(frozen=True)
class CheckpointWriter(Facts):
    """Writes the files of a run. Same state, same step: the same bytes, unless time stamps are asked for."""

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        """Write one file, whole or not at all. Its `ss_output_name` is its own stem."""
        adapter = from_state_dict(state, {}, str(path))
        adapter.save(path, "kohya", DTYPES[self.config.save_dtype], self.metadata(path.stem, step))

    @contextmanager
    def preview_model(self, file: Path | None) -> Iterator[BaseModel]:
        """Open the base with a saved file applied; None: the base alone. Within the block only."""
        loras = [] if file is None else [(load_adapter(file), 1.0, 1.0)]
        with self.base_model() as base, apply_loras(base, loras):
            yield base

    @contextmanager
    def base_model(self) -> Iterator[BaseModel]:
        """Give the untrained base. On a CPU it is opened again, since the one in training has weights laid out for
        training alone; on other devices networks that wait in main memory come back for as long.
        """
        if self.base.device.type == "cpu":
            yield load(self.config.base, vae=self.config.vae, prediction_type=self.config.prediction_type)
            return
        waiting = [network for network in (self.base.vae, *self.base.text_encoders) if waits(network)]
        for network in waiting:
            network.to(self.base.device)
        try:
            yield self.base
        finally:
            for network in waiting:
                network.to("cpu")

    def prompt(self, prompt: str, file: Path | None) -> str:
        """The prompt that calls a saved file in `maquette generate` and A1111."""
        return prompt if file is None else f"{prompt} <lora:{file.stem}:1>"

    def sidecar(self, path: Path, weight: float | None = None) -> None:
        """NAME.json beside the file, with the weight at which it is offered: this, else the configuration's."""
        weight = weight or self.config.preferred_weight or WEIGHT
        description = f"{self.config.method} trained by maquette on {Path(self.base.source).absolute().name}"
        notes = f"{len(self.dataset.of('instance'))} photos, {self.config.steps} steps"
        write_sidecar(path, self.base, description, subject_of(self.config, self.dataset) or "", weight, notes)


def write_sidecar(path: Path, base: BaseModel, description: str, subject: str, weight: float, notes: str) -> None:
    """NAME.json beside the file, in the form that A1111 reads: words that call the subject, a weight, the base."""
    versions = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}
    write_json(
        path.with_suffix(".json"),
        {
            "description": description,
            "sd version": versions.get(base.spec.name, "Unknown"),
            "activation text": subject,
            "preferred weight": weight,
            "notes": notes,
        },
    )


class EmbeddingWriter(CheckpointWriter):
    """Writes words: a few vectors, called in prompts by the name of their file."""

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        metadata = {key: v for key, v in self.metadata(path.stem, step).items() if key.startswith("modelspec.")}
        metadata["modelspec.architecture"] = f"{self.base.spec.architecture}/textual-inversion"
        word = Embedding(path.stem, vectors_of(state), self.base.spec.name)
        embeddings.save(word, path, self.config.embedding_format, metadata)

    @contextmanager
    def preview_model(self, file: Path | None) -> Iterator[BaseModel]:
        """Within the block the subject's own words call the vectors, as in training."""
        words = [] if file is None else [embeddings.load(file, name=self.subject)]
        with self.base_model() as base, apply_embeddings(base, words):
            yield base

    def prompt(self, prompt: str, file: Path | None) -> str:
        return prompt if file is None else re.sub(re.escape(self.subject), file.stem, prompt, flags=re.IGNORECASE)


class ModelWriter(CheckpointWriter):
    """Writes whole models: the base's single file with what was learned in place of its own, and the VAE of the run."""

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        """`state` holds "unet.NAME" and, where it learned too, "te.NAME"."""
        model = find(self.config.base, self.config.vae, self.config.prediction_type)
        if self.config.zero_terminal_snr and model.scheduler.get("prediction_type") == "v_prediction":
            model.scheduler["rescale_betas_zero_snr"] = True
        parts = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
        for key, tensor in state.items():
            network, _, name = key.partition(".")
            model.parts[parts[network]][name.removeprefix("text_model.")] = tensor
        model.metadata = {"modelspec.title": path.stem, "modelspec.architecture": self.base.spec.architecture}
        if subject := subject_of(self.config, self.dataset):
            model.metadata["modelspec.trigger_phrase"] = subject
        write_single_file(model, path, DTYPES[self.config.save_dtype])

    @contextmanager
    def preview_model(self, file: Path | None) -> Iterator[BaseModel]:
        if file is not None:
            yield load(file, device=self.base.device)
        else:
            with self.base_model() as base:
                yield base

    def prompt(self, prompt: str, file: Path | None) -> str:
        return prompt
