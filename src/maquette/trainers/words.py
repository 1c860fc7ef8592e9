"""Words of other trainers for what maquette calls otherwise, for whoever writes them here out of habit."""

from __future__ import annotations

from collections.abc import Container

# diffusers' example scripts, and PEFT.
DIFFUSERS = {
    "pretrained_model_name_or_path": "base", "pretrained_vae_model_name_or_path": "vae",
    "instance_data_dir": "photos", "instance_prompt": "subject", "class_data_dir": "reg", "class_prompt": "reg",
    "with_prior_preservation": "reg", "num_class_images": "reg", "output_dir": "out", "max_train_steps": "steps",
    "num_train_epochs": "epochs", "train_batch_size": "batch_size", "center_crop": "random_crop",
    "random_flip": "flip_aug", "train_text_encoder": "text_encoder", "text_encoder_lr": "text_encoder_learning_rate",
    "lr_num_cycles": "lr_scheduler_cycles", "lr_power": "lr_scheduler_power", "snr_gamma": "min_snr_gamma",
    "adam_weight_decay": "weight_decay", "adam_weight_decay_text_encoder": "weight_decay",
    "adam_beta1": "optimizer_args", "adam_beta2": "optimizer_args", "adam_epsilon": "optimizer_args",
    "checkpointing_steps": "save_every_steps", "checkpoints_total_limit": "keep_last",
    "validation_prompt": "sample_prompts", "report_to": "trackers", "placeholder_token": "subject",
    "initializer_token": "init_word", "lora_alpha": "alpha", "lora_dropout": "dropout",
    "lora_r": "rank", "r": "rank", "use_dora": "method", "use_rslora": "rank_stabilized", "target_modules": "layers",
    "proportion_empty_prompts": "caption_dropout", "offset_noise": "noise_offset", "rank_pattern": "block_ranks",
    "alpha_pattern": "block_alphas", "lora_layers": "layers", "allow_tf32": "dtype",
}  # fmt: skip
ONETRAINER = {
    "base_model_name": "base", "output_model_destination": "out", "training_method": "method", "peft_type": "method",
    "concepts": "photos", "learning_rate_scheduler": "lr_scheduler", "learning_rate_warmup_steps": "warmup_steps",
    "learning_rate_cycles": "lr_scheduler_cycles", "learning_rate_min_factor": "lr_scheduler_min_ratio",
    "lora_rank": "rank", "lora_decompose": "method", "lora_model_name": "from_lora", "dropout_probability": "dropout",
    "ema": "ema_decay", "clip_grad_norm": "max_grad_norm", "train_dtype": "dtype", "output_dtype": "save_dtype",
    "aspect_ratio_bucketing": "buckets", "masked_training": "alpha_mask", "offset_noise_weight": "noise_offset",
    "perturbation_noise_weight": "input_perturbation", "force_v_prediction": "base",
    "rescale_noise_scheduler_to_zero_terminal_snr": "zero_terminal_snr", "min_noising_strength": "min_timestep",
    "max_noising_strength": "max_timestep", "mse_strength": "loss_type", "mae_strength": "loss_type",
    "huber_strength": "loss_type",
    "loss_weight_fn": "min_snr_gamma", "loss_weight_strength": "min_snr_gamma", "timestep_distribution":
    "timestep_sampling", "save_every": "save_every_steps", "text_encoder_layer_skip": "clip_skip",
    "initial_embedding_text": "init_word", "token_count": "num_vectors", "layer_filter": "layers",
    "custom_learning_rate_scheduler": "lr_scheduler", "gradient_checkpointing": "gradient_checkpointing",
}  # fmt: skip
# Not of one trainer.
COMMON = {"lr": "learning_rate", "dim": "rank", "lora_dim": "rank", "lora_lr": "learning_rate", "bs": "batch_size",
          "trigger": "subject", "trigger_word": "subject", "model": "base", "checkpoint": "base", "wd": "weight_decay",
          "te_lr": "text_encoder_learning_rate", "images": "photos", "num_epochs": "epochs",
          "data_dir": "photos"}  # fmt: skip


def meaning(word: str, known: Container[str]) -> str:
    """What another trainer's word is here, as the end of a sentence; "" where it is no such word.

    known: our keys that may be named.
    """
    from .kohya import OPTIONS
    from .kohya_gui import FIELDS

    word = word.strip().lower().replace("-", "_")
    kohya = next((option for name, option in {**FIELDS, **OPTIONS}.items() if name.lower() == word), None)
    if kohya is not None and kohya.fate == "mapped" and kohya.key in known:
        return f"did you mean {kohya.key!r}, which is {word} in Kohya's trainer?"
    for whose, words in (("diffusers", DIFFUSERS), ("OneTrainer", ONETRAINER), ("", COMMON)):
        if words.get(word) in known and words.get(word) != word:
            return f"did you mean {words[word]!r}" + (f", which is {word} in {whose}?" if whose else "?")
    if kohya is not None and kohya.fate == "mapped":
        return f"in Kohya's trainer it stands for {kohya.key or kohya.why}; maquette import kohya reads it."
    if kohya is not None:
        what = "has no effect here" if kohya.fate == "no effect" else "has no equal here"
        return f"it is an option of Kohya's trainer that {what}: {kohya.why}."
    return ""
