"""A run's configuration, and changes of it that other programs can express."""

from typing import Any

# A run's configuration as it lies in run.toml: every number filled in.
RUN: dict[str, Any] = {
    "photos": "photos", "subject": "zkw robot", "base": "sd15.safetensors", "out": "runs/zkw", "steps": 1400,
    "repeats": 2, "batch_size": 4, "resolution": 512, "buckets": True, "rank": 16, "alpha": 8.0,
    "learning_rate": 1e-4, "save_every_steps": 350, "sample_prompts": ["zkw robot, on a beach", "a robot"],
    "sample_cfg_scale": 7.0, "dtype": "bf16", "min_snr_gamma": 5.0,
}  # fmt: skip

ROUNDS: list[dict[str, Any]] = [
    {},
    {"text_encoder": True, "text_encoder_learning_rate": 5e-5, "min_snr_gamma": 0.0, "seed": 7, "flip_aug": True},
    {"method": "locon", "conv_rank": 8, "conv_alpha": 4.0, "rank_dropout": 0.1, "module_dropout": 0.2, "dropout": 0.3},
    {"method": "dora", "dora_axis": "output", "seed": 3},
    {"method": "dora", "lora_plus_ratio": 4.0, "scale_weight_norms": 1.0, "gradient_accumulation": 2},
    {"method": "loha", "optimizer": "prodigy", "learning_rate": 1.0, "weight_decay": 0.1, "lr_scheduler": "constant"},
    {"dtype": "fp16", "gradient_checkpointing": True},
    {"method": "locon", "text_encoder": True, "text_encoder_learning_rate": 5e-5},
    {"method": "loha", "layers": ["cross_attention", "self_attention"]},
    {"method": "lokr", "lokr_factor": -1, "optimizer": "adafactor"},
    {"save_every_steps": None, "save_every_epochs": 2, "keep_last": 3},
    {"method": "lokr", "lokr_factor": 4, "optimizer": "lion", "lr_scheduler": "restarts", "lr_scheduler_cycles": 5},
    {"lr_scheduler": "linear", "warmup_steps": 100, "max_grad_norm": 0.5, "save_dtype": "fp32", "dtype": "fp32"},
    {"caption_prefix": "art, ", "caption_suffix": ", best", "caption_wildcards": True, "shuffle_captions": True,
     "keep_tokens": 2, "tag_dropout": 0.1, "caption_dropout": 0.05, "alpha_mask": True},
    {"noise_offset": 0.05, "noise_offset_random": True, "noise_offset_adaptive": 0.01, "pyramid_noise_levels": 6,
     "pyramid_noise_discount": 0.2, "input_perturbation": 0.1, "debiased_estimation": True, "zero_terminal_snr": True},
    {"loss_type": "huber", "huber_delta": 0.2, "huber_schedule": "constant", "min_timestep": 20, "max_timestep": 900},
    {"keep_last": 3, "clip_skip": 2, "vae": "vae.safetensors", "from_lora": "old.safetensors",
     "trackers": ["tensorboard"]},
    {"method": "dreambooth", "text_encoder": True, "text_encoder_learning_rate": 2e-6, "rank": 16, "alpha": None},
    {"method": "dreambooth", "optimizer": "adafactor", "save_dtype": "bf16", "rank": 16, "alpha": None},
    {"subject": "zkw style", "kind": "style"},
    {"rank_stabilized": True, "optimizer": "schedule-free-adamw", "sample_prompts": [], "subject": "zkw's \"robot\""},
]  # fmt: skip
