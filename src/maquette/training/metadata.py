"""What a LoRA file tells of its training, under the names that other programs show and sort by."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..config import TrainConfig
from ..data.dataset import Dataset, Photo, Role, bucket_counts
from ..families.base import BaseModel
from ..formats.safetensors import file_sha256
from ..interop.kohya import network as kohya_network
from .defaults import subject_of


def _now() -> float:
    return datetime.now(UTC).timestamp()


@dataclass(frozen=True)
class Facts:
    """Metadata of a run's files. No folder paths; times only where they are asked for."""

    config: TrainConfig  # with every default filled in
    base: BaseModel
    dataset: Dataset
    began: float = field(default_factory=_now)

    def metadata(self, name: str, step: int) -> dict[str, str]:
        """ss_* as Kohya's trainer names them and modelspec.*; no folder paths. `sshs_model_hash` is added on saving."""
        config, dataset = self.config, self.dataset
        instance = dataset.of("instance")
        epoch_steps = max(1, -(-dataset.samples("instance") // (config.batch_size or 1)))
        values: dict[str, object] = {
            "session_id": self._session(),
            "output_name": name,
            "base_model_version": self.base.spec.base_model_version,
            "v2": self.base.spec.name == "sd2",
            "sd_model_name": Path(self.base.source).absolute().name,
            "sd_model_hash": _old_hash(self.base.source),
            "new_sd_model_hash": self.base.content_hash,
            **self._vae(),
            "network_module": kohya_network.module(config),
            "network_dim": config.rank,
            "network_alpha": config.alpha,
            "network_args": json.dumps(kohya_network.write(config, self.base.spec.name == "sdxl")[0]),
            "network_dropout": config.dropout,
            "learning_rate": config.learning_rate,
            "unet_lr": config.learning_rate,
            "text_encoder_lr": config.text_encoder_learning_rate if config.text_encoder else None,
            "lr_scheduler": config.lr_scheduler,
            "lr_warmup_steps": config.warmup_steps,
            "optimizer": _call(config.optimizer, config.optimizer_args),
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
            "flip_aug": config.flip_aug,
            "mixed_precision": "no" if config.dtype == "fp32" else config.dtype,
            "seed": config.seed,
            "clip_skip": config.clip_skip,
            "min_snr_gamma": config.min_snr_gamma or None,
            "debiased_estimation": config.debiased_estimation,
            "noise_offset": config.noise_offset or None,
            "multires_noise_iterations": config.pyramid_noise_levels or None,
            "multires_noise_discount": config.pyramid_noise_discount if config.pyramid_noise_levels else None,
            "ip_noise_gamma": config.input_perturbation or None,
            "zero_terminal_snr": config.zero_terminal_snr,
            "loss_type": config.loss_type,
            "prior_loss_weight": config.prior_loss_weight,
            "caption_dropout_rate": config.caption_dropout,
            "cache_latents": True,
            "tag_frequency": json.dumps(self._tag_frequency(), ensure_ascii=False),
            "dataset_dirs": json.dumps(self._folders("instance")),
        }
        values |= self._plain_facts()
        if config.timestamps:
            values["training_started_at"] = self.began
            values["training_finished_at"] = _now()
        return {f"ss_{key}": str(value) for key, value in values.items()} | self._modelspec(name)

    def _vae(self) -> dict[str, object]:
        """Named only where it is not the base's own, as Kohya's trainer does."""
        base = self.base
        if not base.vae_source:
            return {}
        return {
            "vae_name": Path(base.vae_source).name,
            "vae_hash": _old_hash(base.vae_source),
            "new_vae_hash": base.vae_hash,
        }

    def _plain_facts(self) -> dict[str, object]:
        """What Kohya's trainer writes besides, with what stands for "not used" where maquette has no such thing."""
        config, dataset = self.config, self.dataset
        rules = dataset.rules
        return {
            "batch_size_per_device": -(-(config.batch_size or 1) // config.gradient_accumulation),
            "num_validation_images": len(dataset.of("held")),
            "gradient_checkpointing": config.gradient_checkpointing,
            "full_fp16": False,
            "fp8_base": False,
            "fp8_base_unet": False,
            "lowram": False,
            "max_token_length": None if config.max_token_length == 75 else config.max_token_length,
            "color_aug": False,
            "random_crop": config.random_crop,
            "face_crop_aug_range": None,
            "bucket_no_upscale": config.no_upscale,
            "min_bucket_reso": rules.min_size if rules else None,
            "max_bucket_reso": rules.max_size if rules else None,
            "shuffle_caption": config.shuffle_captions,
            "keep_tokens": config.keep_tokens,
            "caption_tag_dropout_rate": config.tag_dropout,
            "caption_dropout_every_n_epochs": 0,
            "adaptive_noise_scale": config.noise_offset_adaptive or None,
            "noise_offset_random_strength": config.noise_offset_random,
            "ip_noise_gamma_random_strength": config.input_perturbation_random,
            "scale_weight_norms": config.scale_weight_norms or None,
            "huber_schedule": config.huber_schedule,
            "huber_c": config.huber_delta,
            "training_comment": f"maquette {config.method}",
            "reg_dataset_dirs": json.dumps(self._folders("class")),
            "huber_scale": 1.0,
            "validation_seed": None,
            "validation_split": 0.0,
            "max_validation_steps": None,
            "validate_every_n_epochs": None,
            "validate_every_n_steps": None,
            "resize_interpolation": None,
        }

    def _modelspec(self, name: str) -> dict[str, str]:
        predicts = self.base.scheduler_config.get("prediction_type", "epsilon")
        values = {
            "sai_model_spec": "1.0.1",
            "architecture": f"{self.base.spec.architecture}/lora",
            "implementation": "diffusers",
            "title": name,
            "resolution": self._resolution().replace(",", "x"),
            "prediction_type": "v" if predicts == "v_prediction" else predicts,
            "encoder_layer": str(self.config.clip_skip if self.base.spec.clip_skip else 2),
            "timestep_range": f"{self.config.min_timestep},{self.config.max_timestep}",
        }
        if subject := subject_of(self.config, self.dataset):
            values["trigger_phrase"] = subject
        if self.config.timestamps:
            values["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        return {f"modelspec.{key}": value for key, value in values.items()}

    @property
    def subject(self) -> str:
        """What stands where there is no folder to name."""
        return subject_of(self.config, self.dataset) or "photos"

    def _session(self) -> int:
        """A number for the run, as Kohya's random one, but the same for the same run."""
        photos = [(photo.sha256, photo.caption, photo.repeats) for photo in self.dataset.photos]
        facts = [self.base.content_hash, self.config.method, self.config.rank, self.config.seed, photos]
        return int(hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8], 16)

    def _resolution(self) -> str:
        width, height = self.dataset.rules.resolution if self.dataset.rules else (0, 0)
        return f"{width},{height}"

    def _bucket_info(self) -> dict[str, object]:
        counts = bucket_counts([photo for photo in self.dataset.photos if photo.role != "held"])
        buckets = {str(i): {"resolution": list(size), "count": n} for i, (size, n) in enumerate(counts.items())}
        return {"buckets": buckets}

    def _tag_frequency(self) -> dict[str, dict[str, int]]:
        """Of each folder that `_folders` names, how often its captions have a tag, in lower case."""
        found: dict[str, Counter[str]] = {}
        for photo in self.dataset.of("instance"):
            tags = (tag.strip().lower() for tag in photo.caption.split(","))
            found.setdefault(self._folder(photo), Counter()).update(tag for tag in tags if tag)
        return {name: dict(sorted(tags.items())) for name, tags in sorted(found.items())}

    def _folders(self, role: Role) -> dict[str, dict[str, int]]:
        """The folders of a role with their repeats and how many photos they hold."""
        found: dict[str, list[Photo]] = {}
        for photo in self.dataset.of(role):
            found.setdefault(self._folder(photo), []).append(photo)
        return {
            name: {"n_repeats": photos[0].repeats, "img_count": len(photos)} for name, photos in sorted(found.items())
        }

    def _folder(self, photo: Photo) -> str:
        """The name, without its path, of the folder that Kohya's trainer would say a photo lies in.

        That is its Kohya folder or a data set file's; else what such a folder would be called, plain where nothing
        repeats, by the subject: a plain folder's own name is no one's business.
        """
        top = photo.name.partition("/")[0]
        repeats, _, words = top.partition("_")
        if top != photo.name and repeats.isdigit() and words.strip() == photo.subject:
            return top
        layout = self.dataset.layout
        if layout == "toml" and photo.role == "instance":
            return photo.path.parent.name
        name = "class" if photo.role == "class" else photo.subject or self.subject
        kohya = layout == "kohya" and photo.role == "instance"
        return f"{photo.repeats}_{name}" if kohya or photo.repeats > 1 else name


def _call(name: str, arguments: Mapping[str, object]) -> str:
    """A name and its arguments, as Kohya's trainer notes an optimizer."""
    return f"{name}({','.join(f'{key}={value}' for key, value in arguments.items())})" if arguments else name


def _old_hash(path: str) -> str | None:
    """A1111's first kind of hash: eight digits from 64 KiB at 1 MiB of a model that is one file."""
    source = Path(path)
    return file_sha256(source, 1 << 20, 1 << 16)[:8] if source.is_file() else None
