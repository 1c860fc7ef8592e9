"""Checkpoints as complete adapter files, with the metadata that other programs show and sort by."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from ... import methods
from ...config import TrainConfig
from ...data.dataset import Dataset, bucket_counts
from ...families import checkpoint, load
from ...families.base import BaseModel
from ...families.pocket.spec import POCKET, WEIGHTS
from ...families.save import write_single_file
from ...formats import embeddings
from ...formats.adapters import from_state_dict
from ...formats.adapters import load as load_adapter
from ...formats.embeddings import Embedding
from ...formats.safetensors import file_sha256
from ...run import write_json
from ..apply import apply_loras
from ..embedding import apply_embeddings, vectors_of
from .defaults import subject_of

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def author(config: TrainConfig, base: BaseModel, dataset: Dataset) -> Author:
    """The author of what the run's method makes."""
    kinds = {"adapter": Author, "model": ModelAuthor, "embedding": EmbeddingAuthor}
    return kinds[methods.METHODS[config.method].product](config, base, dataset)


@dataclass(frozen=True)
class Author:
    """Writes the files of a run. Same state, same step: the same bytes, unless time stamps are asked for."""

    config: TrainConfig  # with every default filled in
    base: BaseModel
    dataset: Dataset

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        """Write one file, whole or not at all. Its `ss_output_name` is its own stem."""
        adapter = from_state_dict(state, {}, str(path))
        adapter.save(path, "kohya", DTYPES[self.config.save_dtype], self.metadata(path.stem, step))

    @contextmanager
    def opened(self, file: Path | None) -> Iterator[BaseModel]:
        """The base as a saved file changes it, or as it is; within the block only."""
        loras = [] if file is None else [(load_adapter(file), 1.0, 1.0)]
        with apply_loras(self.base, loras):
            yield self.base

    def prompt(self, prompt: str, file: Path | None) -> str:
        """The prompt that calls a saved file in `maquette generate` and A1111."""
        return prompt if file is None else f"{prompt} <lora:{file.stem}:1>"

    def _vae(self) -> dict[str, object]:
        """Named only where it is not the base's own, as Kohya's trainer does."""
        base = self.base
        return {"vae_name": Path(base.vae_source).name, "new_vae_hash": base.vae_hash} if base.vae_source else {}

    def metadata(self, name: str, step: int) -> dict[str, str]:
        """ss_* as Kohya's trainer names them and modelspec.*; no folder paths. `sshs_model_hash` is added on saving."""
        config, dataset = self.config, self.dataset
        instance = dataset.of("instance")
        epoch_steps = max(1, -(-dataset.samples("instance") // (config.batch_size or 1)))
        values: dict[str, object] = {
            "output_name": name,
            "base_model_version": self.base.spec.base_model_version,
            "v2": self.base.spec.name == "sd2",
            "sd_model_name": Path(self.base.source).name,
            "sd_model_hash": self._old_hash(),
            "new_sd_model_hash": self.base.content_hash,
            **self._vae(),
            "network_module": methods.METHODS[config.method].network_module,
            "network_dim": config.rank,
            "network_alpha": config.alpha,
            "network_args": json.dumps(self._network_args()),
            "network_dropout": config.dropout,
            "learning_rate": config.learning_rate,
            "unet_lr": config.learning_rate,
            "text_encoder_lr": config.text_encoder_learning_rate if config.text_encoder else None,
            "lr_scheduler": config.scheduler,
            "lr_warmup_steps": config.warmup_steps,
            "optimizer": config.optimizer,
            "max_grad_norm": config.max_grad_norm,
            "max_train_steps": config.steps,
            "steps": step,
            "epoch": -(-step // epoch_steps),
            "num_epochs": -(-(config.steps or 0) // epoch_steps),
            "num_batches_per_epoch": epoch_steps,
            "num_train_images": dataset.samples("instance"),
            "num_reg_images": dataset.samples("class"),
            "total_batch_size": config.batch_size,
            "gradient_accumulation_steps": config.gradient_accumulation,
            "resolution": self._resolution(),
            "enable_bucket": len(bucket_counts(instance)) > 1,
            "bucket_info": json.dumps(self._bucket_info()),
            "flip_aug": config.flip,
            "mixed_precision": "no" if config.dtype == "fp32" else config.dtype,
            "seed": config.seed,
            "clip_skip": config.clip_skip,
            "min_snr_gamma": config.min_snr_gamma or None,
            "debiased_estimation": config.debiased,
            "noise_offset": config.noise_offset or None,
            "multires_noise_iterations": config.pyramid_noise_levels or None,
            "multires_noise_discount": config.pyramid_noise_discount if config.pyramid_noise_levels else None,
            "ip_noise_gamma": config.input_perturbation or None,
            "zero_terminal_snr": config.zero_terminal_snr,
            "loss_type": config.loss,
            "prior_loss_weight": config.prior_loss_weight,
            "caption_dropout_rate": config.caption_dropout,
            "cache_latents": True,
            "tag_frequency": json.dumps(self._tag_frequency(), ensure_ascii=False),
            "dataset_dirs": json.dumps({self._subject(): {"n_repeats": 1, "img_count": len(instance)}}),
        }
        values |= self._plain_facts()
        if config.timestamps:
            values["training_finished_at"] = datetime.now(UTC).timestamp()
        return {f"ss_{key}": str(value) for key, value in values.items()} | self._modelspec(name)

    def _old_hash(self) -> str | None:
        """A1111's first kind of hash: eight digits from 64 KiB at 1 MiB of a model that is one file."""
        source = Path(self.base.source)
        return file_sha256(source, 1 << 20, 1 << 16)[:8] if source.is_file() else None

    def _plain_facts(self) -> dict[str, object]:
        """What Kohya's trainer writes besides, with what stands for "not used" where maquette has no such thing."""
        config, dataset = self.config, self.dataset
        regularization = dataset.of("class")
        rules = dataset.rules
        return {
            "batch_size_per_device": config.batch_size,
            "num_validation_images": 0,
            "gradient_checkpointing": config.gradient_checkpointing,
            "full_fp16": False,
            "fp8_base": False,
            "fp8_base_unet": False,
            "lowram": False,
            "max_token_length": None,  # of any length
            "color_aug": False,
            "random_crop": False,
            "face_crop_aug_range": None,
            "bucket_no_upscale": False,
            "min_bucket_reso": rules.min_size if rules else None,
            "max_bucket_reso": rules.max_size if rules else None,
            "shuffle_caption": config.shuffle_captions,
            "keep_tokens": config.keep_tokens,
            "caption_tag_dropout_rate": config.tag_dropout,
            "caption_dropout_every_n_epochs": 0,
            "adaptive_noise_scale": config.noise_offset_adaptive or None,
            "noise_offset_random_strength": config.noise_offset_random,
            "ip_noise_gamma_random_strength": False,
            "scale_weight_norms": config.max_norm or None,
            "huber_schedule": config.huber_schedule,
            "huber_c": config.huber_delta,
            "training_comment": f"maquette {config.method}",
            "reg_dataset_dirs": json.dumps({"class": {"n_repeats": 1, "img_count": len(regularization)}})
            if regularization
            else "{}",
        }

    def _modelspec(self, name: str) -> dict[str, str]:
        v = self.base.scheduler_config.get("prediction_type") == "v_prediction"
        values = {
            "sai_model_spec": "1.0.1",
            "architecture": f"{self.base.spec.architecture}/lora",
            "implementation": "diffusers",
            "title": name,
            "resolution": self._resolution().replace(",", "x"),
            "prediction_type": "v" if v else "epsilon",
            "encoder_layer": str(self.config.clip_skip),
            "timestep_range": f"{self.config.min_timestep},{self.config.max_timestep}",
        }
        if subject := subject_of(self.config, self.dataset):
            values["trigger_phrase"] = subject
        if self.config.timestamps:
            values["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        return {f"modelspec.{key}": value for key, value in values.items()}

    def sidecar(self, path: Path) -> None:
        """NAME.json beside the file, in the form that A1111 reads: words that call the subject, a weight, the base."""
        spec = self.base.spec
        versions = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}
        write_json(
            path.with_suffix(".json"),
            {
                "description": f"{self.config.method} trained by maquette on {Path(self.base.source).name}",
                "sd version": versions.get(spec.name, "Unknown"),
                "activation text": subject_of(self.config, self.dataset) or "",
                "preferred weight": 1.0,
                "notes": f"{len(self.dataset.of('instance'))} photos, {self.config.steps} steps",
            },
        )

    def _subject(self) -> str:
        return subject_of(self.config, self.dataset) or "photos"

    def _resolution(self) -> str:
        width, height = self.dataset.rules.resolution if self.dataset.rules else (0, 0)
        return f"{width},{height}"

    def _network_args(self) -> dict[str, str]:
        config = self.config
        given = {
            "conv_dim": config.conv_rank,
            "conv_alpha": config.conv_alpha,
            "rank_dropout": config.rank_dropout or None,
            "module_dropout": config.module_dropout or None,
            "loraplus_lr_ratio": config.lora_plus_ratio if config.lora_plus_ratio != 1 else None,
            "rs_lora": config.rank_stabilized or None,
        }
        return {key: str(value) for key, value in given.items() if value is not None}

    def _bucket_info(self) -> dict[str, object]:
        counts = bucket_counts(self.dataset.photos)
        buckets = {str(i): {"resolution": list(size), "count": n} for i, (size, n) in enumerate(counts.items())}
        return {"buckets": buckets}

    def _tag_frequency(self) -> dict[str, dict[str, int]]:
        tags = Counter(
            tag.strip() for photo in self.dataset.of("instance") for tag in photo.caption.split(",") if tag.strip()
        )
        return {self._subject(): dict(sorted(tags.items()))}


class EmbeddingAuthor(Author):
    """Writes words: a few vectors, called in prompts by the name of their file."""

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        metadata = {key: v for key, v in self.metadata(path.stem, step).items() if key.startswith("modelspec.")}
        metadata["modelspec.architecture"] = f"{self.base.spec.architecture}/textual-inversion"
        word = Embedding(path.stem, vectors_of(state), self.base.spec.name)
        embeddings.save(word, path, self.config.embedding_format, metadata)

    @contextmanager
    def opened(self, file: Path | None) -> Iterator[BaseModel]:
        """Within the block the subject's own words call the vectors, as in training."""
        with apply_embeddings(self.base, [] if file is None else [embeddings.load(file, name=self._subject())]):
            yield self.base

    def prompt(self, prompt: str, file: Path | None) -> str:
        return prompt if file is None else re.sub(re.escape(self._subject()), file.stem, prompt, flags=re.IGNORECASE)


class ModelAuthor(Author):
    """Writes whole models: the base's single file with what was learned in place of its own."""

    def save(self, state: dict[str, Tensor], path: Path, step: int) -> None:
        """`state` holds "unet.NAME" and, where it learned too, "te.NAME"; the VAE is the base's."""
        base = self.config.base
        model = checkpoint.read_folder(WEIGHTS, POCKET) if base == "pocket" else checkpoint.read(base)
        parts = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
        for key, tensor in state.items():
            network, _, name = key.partition(".")
            model.parts[parts[network]][name] = tensor
        model.metadata = {"modelspec.title": path.stem, "modelspec.architecture": self.base.spec.architecture}
        if subject := subject_of(self.config, self.dataset):
            model.metadata["modelspec.trigger_phrase"] = subject
        write_single_file(model, path, DTYPES[self.config.save_dtype])

    @contextmanager
    def opened(self, file: Path | None) -> Iterator[BaseModel]:
        yield self.base if file is None else load(file, device=self.base.device)

    def prompt(self, prompt: str, file: Path | None) -> str:
        return prompt
