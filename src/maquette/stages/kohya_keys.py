"""Kohya's training options and maquette's keys: which mean the same, both ways, and which have no equal."""

from __future__ import annotations

from typing import Any

# Same meaning, same value, other name.
SAME = {
    "seed": "seed",
    "steps": "max_train_steps",
    "epochs": "max_train_epochs",
    "gradient_accumulation": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "flip": "flip_aug",
    "random_crop": "random_crop",
    "no_upscale": "bucket_no_upscale",
    "rank": "network_dim",
    "alpha": "network_alpha",
    "dropout": "network_dropout",
    "max_norm": "scale_weight_norms",
    "learning_rate": "unet_lr",
    "text_encoder_learning_rate": "text_encoder_lr",
    "warmup_steps": "lr_warmup_steps",
    "scheduler_cycles": "lr_scheduler_num_cycles",
    "max_grad_norm": "max_grad_norm",
    "caption_prefix": "caption_prefix",
    "caption_suffix": "caption_suffix",
    "caption_wildcards": "enable_wildcard",
    "weighted_captions": "weighted_captions",
    "shuffle_captions": "shuffle_caption",
    "keep_tokens": "keep_tokens",
    "tag_dropout": "caption_tag_dropout_rate",
    "caption_dropout": "caption_dropout_rate",
    "alpha_mask": "alpha_mask",
    "min_snr_gamma": "min_snr_gamma",
    "debiased": "debiased_estimation_loss",
    "noise_offset": "noise_offset",
    "noise_offset_random": "noise_offset_random_strength",
    "noise_offset_adaptive": "adaptive_noise_scale",
    "pyramid_noise_levels": "multires_noise_iterations",
    "pyramid_noise_discount": "multires_noise_discount",
    "input_perturbation": "ip_noise_gamma",
    "input_perturbation_random": "ip_noise_gamma_random_strength",
    "scale_v_pred_loss_like_noise_pred": "scale_v_pred_loss_like_noise_pred",
    "v_pred_like_loss": "v_pred_like_loss",
    "scheduler_power": "lr_scheduler_power",
    "scheduler_timescale": "lr_scheduler_timescale",
    "scheduler_min_ratio": "lr_scheduler_min_lr_ratio",
    "decay_steps": "lr_decay_steps",
    "zero_terminal_snr": "zero_terminal_snr",
    "loss": "loss_type",
    "huber_delta": "huber_c",
    "huber_schedule": "huber_schedule",
    "min_timestep": "min_timestep",
    "max_timestep": "max_timestep",
    "prior_loss_weight": "prior_loss_weight",
    "clip_skip": "clip_skip",
    "save_every_steps": "save_every_n_steps",
    "save_every_epochs": "save_every_n_epochs",
    "base": "pretrained_model_name_or_path",
    "vae": "vae",
    "reg": "reg_data_dir",
    "from_lora": "network_weights",
}
WORDS = {  # values of another name
    "optimizer": (
        "optimizer_type",
        {
            "adamw": "AdamW",
            "adamw8bit": "AdamW8bit",
            "sgd": "SGDNesterov",
            "adafactor": "Adafactor",
            "lion": "Lion",
            "prodigy": "Prodigy",
            "schedule-free-adamw": "AdamWScheduleFree",
        },
    ),
    "scheduler": (
        "lr_scheduler",
        {
            "constant": "constant",
            "linear": "linear",
            "cosine": "cosine",
            "restarts": "cosine_with_restarts",
            "polynomial": "polynomial",
            "inverse-sqrt": "inverse_sqrt",
            "stable-decay": "warmup_stable_decay",
        },
    ),
    "dtype": ("mixed_precision", {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}),
    "save_dtype": ("save_precision", {"fp16": "fp16", "bf16": "bf16", "fp32": "float"}),
}
# Settings of optimizers: what ours is in theirs, and theirs where it is not given.
OPTIMIZER_ARGS: dict[str, dict[str, tuple[str, str]]] = {
    "adafactor": {"relative_step": ("False", "True"), "scale_parameter": ("False", "True")},
    "prodigy": {"safeguard_warmup": ("True", "False"), "use_bias_correction": ("True", "False")},
}
WEIGHT_DECAY = {"adamw": 0.01, "adamw8bit": 0.01}  # of the others 0, where it is not given
# What an option that is not given means to Kohya's trainer, where maquette means something else.
THEIR_DEFAULTS: dict[str, Any] = {
    "rank": 4,
    "alpha": 1.0,
    "batch_size": 1,
    "buckets": False,
    "resolution": 512,
    "scheduler": "constant",
    "min_snr_gamma": 0.0,
    "text_encoder": True,
    "dtype": "fp32",
    "save_dtype": "fp32",
    "scheduler_cycles": 1,
}
# Sides of buckets where none are given, by the field of data.buckets.BucketRules.
BUCKET_LIMITS = {"min_size": ("min_bucket_reso", 256), "max_size": ("max_bucket_reso", 1024),
                 "step": ("bucket_reso_steps", 64)}  # fmt: skip
# How they compute, not what: maquette decides these itself.
NEEDLESS = {
    "xformers", "sdpa", "mem_eff_attn", "cache_latents", "cache_latents_to_disk",
    "cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk", "max_data_loader_n_workers",
    "persistent_data_loader_workers", "save_model_as", "logging_dir", "lowram", "highvram", "vae_batch_size",
    "caption_extension", "no_half_vae", "output_config", "max_token_length", "network_module", "v2",
    "v_parameterization", "torch_compile", "dynamo_backend", "skip_cache_check", "num_cpu_threads_per_process",
    "num_processes", "num_machines", "config_file",
    "dataset_config",
}  # fmt: skip
# Kohya's GUI calls these options otherwise.
GUI_NAMES = {"max_resolution": "resolution", "optimizer": "optimizer_type", "epoch": "max_train_epochs"}
# Its kinds of networks: the module, the algorithm, and which of its fields become network_args.
_LORA_FIELDS = (
    "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight",
    "up_lr_weight", "block_lr_zero_threshold", "rank_dropout", "module_dropout",
)  # fmt: skip
_LYCORIS_FIELDS = (
    "rank_dropout", "module_dropout", "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm", "bypass_mode",
    "conv_dim", "conv_alpha", "LyCORIS_preset", "dora_wd", "rs_lora",
)  # fmt: skip
GUI_METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Standard": ("networks.lora", "", _LORA_FIELDS),
    "Kohya LoCon": ("networks.lora", "", (*_LORA_FIELDS, "conv_dim", "conv_alpha")),
    "LyCORIS/LoCon": ("lycoris.kohya", "lora", _LYCORIS_FIELDS),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha", _LYCORIS_FIELDS),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr", (*_LYCORIS_FIELDS, "factor", "decompose_both")),
}
GUI_ARGUMENTS = {"LyCORIS_preset": "preset"}  # of another name there
# Fields of other kinds of networks are left as they were when the kind was chosen, and mean nothing.
GUI_FIELDS = {field for _, _, fields in GUI_METHODS.values() for field in fields}
# The GUI's own state: where windows stand, what to start.
GUI_ONLY = {"LoRA_type", "sdxl", "model_list", "sdxl_checkbox", "lr_warmup", "unit"}


def neutral(value: Any) -> bool:
    """Whether a value asks for nothing: what a form writes for a field that was left alone."""
    return value in (None, "", 0, False, [], {}, "None", "none", "0")
