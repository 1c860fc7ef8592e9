"""Every option of sd-scripts' training scripts for Stable Diffusion 1, 2 and XL, and what becomes of it here.

One table: `import kohya` and `command` read it, the words that an unknown key is compared with come from it, and
docs/kohya-options.md is printed from it. The names are those of sd-scripts v0.10 and of the options that later
versions added for these models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["flag", "int", "float", "text", "list"]
Fate = Literal["mapped", "no effect", "no equal"]

# The scripts whose training exists here, and the method that each stands for ("": as --network_module says).
SCRIPTS = {
    "train_network.py": "",
    "sdxl_train_network.py": "",
    "train_db.py": "dreambooth",
    "fine_tune.py": "dreambooth",
    "sdxl_train.py": "dreambooth",
    "train_textual_inversion.py": "textual-inversion",
    "sdxl_train_textual_inversion.py": "textual-inversion",
}
# Options that a script does not know, and does not start with.
_WORDS_ONLY = frozenset({"caption_dropout_rate", "caption_tag_dropout_rate", "weighted_captions"})
UNKNOWN = {
    "train_textual_inversion.py": _WORDS_ONLY,
    "sdxl_train_textual_inversion.py": _WORDS_ONLY,
    "sdxl_train.py": frozenset({"prior_loss_weight"}),
}


@dataclass(frozen=True)
class Option:
    """An option. key: of TrainConfig, where it is mapped. default: what the trainer takes where it is not given.

    same: whether the value is the key's, unchanged. own: import reads it together with others. nothing: further values
    that ask for nothing.
    """

    name: str
    fate: Fate
    why: str = ""
    key: str = ""
    kind: Kind = "text"
    default: Any = None
    same: bool = False
    own: bool = False
    nothing: tuple[Any, ...] = ()


def _same(names: str, kind: Kind, default: Any = None) -> Iterator[Option]:
    """Of the same meaning and value. names: "theirs=ours", or one name for both."""
    for pair in names.split():
        theirs, _, ours = pair.partition("=")
        yield Option(theirs, "mapped", "", ours or theirs, kind, default, same=True)


def _as(name: str, key: str, kind: Kind, default: Any, why: str, same: bool = False) -> Option:
    """Read in a way of its own. same: though the value is the key's, so that `command` writes it as it is."""
    return Option(name, "mapped", why, key, kind, default, same, own=True)


def _none(why: str, names: str) -> Iterator[Option]:
    """Without effect on what is learned."""
    for name in names.split():
        yield Option(name, "no effect", why)


def _lost(why: str, names: str, *nothing: Any) -> Iterator[Option]:
    """Without an equal here. nothing: values, beside those of an empty field, that ask for nothing."""
    for name in names.split():
        yield Option(name, "no equal", why, nothing=nothing)


def _options() -> Iterator[Option]:
    yield from _mapped()
    yield from _no_effect()
    yield from _no_equal()


def _mapped() -> Iterator[Option]:
    yield from _same("gradient_checkpointing random_crop", "flag", False)
    yield from _same("flip_aug enable_wildcard=caption_wildcards alpha_mask", "flag", False)
    yield from _same("weighted_captions shuffle_caption=shuffle_captions bucket_no_upscale=no_upscale", "flag", False)
    yield from _same("zero_terminal_snr debiased_estimation_loss=debiased_estimation", "flag", False)
    yield from _same("keep_tokens min_timestep", "int", 0)
    yield from _same("max_timestep", "int", 1000)
    yield from _same("caption_prefix caption_suffix", "text", "")
    yield from _same("caption_dropout_rate=caption_dropout caption_tag_dropout_rate=tag_dropout", "float", 0.0)
    yield from _same("network_dropout=dropout scale_weight_norms min_snr_gamma", "float", 0.0)
    yield from _same("ip_noise_gamma=input_perturbation", "float", 0.0)
    yield from _same("prior_loss_weight", "float", 1.0)
    yield from _same("huber_c=huber_delta", "float", 0.1)
    yield from _same("loss_type", "text", "l2")
    yield from _same("huber_schedule", "text", "snr")
    yield from _same("save_every_n_steps=save_every_steps save_every_n_epochs=save_every_epochs", "int")
    yield from _same("pretrained_model_name_or_path=base vae network_weights=from_lora", "text")
    yield from _same("network_dim=rank", "int", 4)
    yield from _same("lr_scheduler_num_cycles=lr_scheduler_cycles", "int", 1)
    yield _as("network_alpha", "alpha", "float", 1.0, "0 means the rank", True)
    yield _as("noise_offset", "noise_offset", "float", 0.0, "", True)
    yield _as("noise_offset_random_strength", "noise_offset_random", "flag", False, "with noise_offset", True)
    yield _as("adaptive_noise_scale", "noise_offset_adaptive", "float", 0.0, "with noise_offset", True)
    yield _as("multires_noise_iterations", "pyramid_noise_levels", "int", 0, "", True)
    yield _as("multires_noise_discount", "pyramid_noise_discount", "float", 0.3, "with multires_noise_iterations", True)
    yield _as("ip_noise_gamma_random_strength", "input_perturbation_random", "flag", False, "with ip_noise_gamma", True)
    yield from _same("scale_v_pred_loss_like_noise_pred", "flag", False)
    yield from _same("v_pred_like_loss", "float", 0.0)
    yield _as("seed", "seed", "int", None, "where none is given, theirs is drawn and ours is 0", True)
    yield _as("max_train_steps", "steps", "int", 1600, "max_train_epochs wins; see reg_data_dir", True)
    yield _as("max_train_epochs", "epochs", "int", None, "", True)
    yield _as("train_batch_size", "batch_size", "int", 1,
              "times gradient_accumulation_steps and processes; see reg_data_dir")  # fmt: skip
    yield _as("gradient_accumulation_steps", "gradient_accumulation", "int", 1, "parts of batch_size here", True)
    yield _as("learning_rate", "learning_rate", "float", 2e-6, "unet_lr and text_encoder_lr win over it")
    yield _as("unet_lr", "learning_rate", "float", None, "0 (the text encoder alone) is refused", True)
    yield _as("text_encoder_lr", "text_encoder_learning_rate", "list", None,
              "0: text_encoder = false; of several rates the first, unless they differ", True)  # fmt: skip
    yield _as("learning_rate_te", "text_encoder_learning_rate", "float", None, "0: text_encoder = false")
    yield _as("learning_rate_te1", "text_encoder_learning_rate", "float", None, "as text_encoder_lr")
    yield _as("learning_rate_te2", "text_encoder_learning_rate", "float", None, "as text_encoder_lr")
    yield _as("network_train_unet_only", "text_encoder", "flag", False, "false")
    yield _as("train_text_encoder", "text_encoder", "flag", False, "of fine_tune.py and sdxl_train.py")
    yield _as("stop_text_encoder_training", "text_encoder", "int", None, "-1 and 0: false; a later step has no equal")
    yield _as("network_module", "method", "text", None, "networks.lora, lycoris.kohya; others are refused")
    yield _as(
        "network_args", "method, layers, conv_rank …", "list", None,
        "conv_dim, conv_alpha, block_dims and their like, rank_dropout, module_dropout, loraplus_lr_ratio, LyCORIS' "
        "algo, preset, factor, dora_wd, rs_lora; others are listed",
    )  # fmt: skip
    yield _as("optimizer_type", "optimizer", "text", "AdamW", "see the words below")
    yield _as("optimizer_args", "optimizer_args, weight_decay", "list", None, "those that are ours too are left out")
    yield _as("use_8bit_adam", "optimizer", "flag", False, "adamw8bit")
    yield _as("use_lion_optimizer", "optimizer", "flag", False, "lion")
    yield _as("lr_scheduler", "lr_scheduler", "text", "constant", "see the words below")
    yield from _same("lr_scheduler_power=lr_scheduler_power", "float", 1.0)
    yield from _same("lr_scheduler_timescale=lr_scheduler_timescale", "int")
    yield from _same("lr_scheduler_min_lr_ratio=lr_scheduler_min_ratio", "float", 0.0)
    yield _as("lr_decay_steps", "decay_steps", "float", 0, "as lr_warmup_steps", True)
    yield _as("lr_warmup_steps", "warmup_steps", "float", 0, "below 1 or with %: a share of all, rounded down", True)
    yield from _same("max_grad_norm", "float", 1.0)
    yield _as("clip_skip", "clip_skip", "int", None, "of Stable Diffusion 1 and 2; it is ignored on SDXL", True)
    yield _as("max_token_length", "max_token_length", "int", None, "75 where it is not given", True)
    yield _as("mixed_precision", "dtype", "text", "no", "no, bf16, fp16")
    yield _as("save_precision", "save_dtype", "text", None, "float, bf16, fp16")
    yield _as("resolution", "resolution", "text", "512", "width and height: a square of the same area")
    yield _as("enable_bucket", "buckets", "flag", False, "")
    yield _as("train_data_dir", "photos", "text", None, "dataset_config wins over it")
    yield _as("dataset_config", "photos", "text", None, "what the file says wins over the command line")
    yield _as("in_json", "photos", "text", None, "the metadata file, where it lies in the folder of the photos")
    yield _as("dataset_repeats", "repeats", "int", 1, "with in_json")
    yield _as("caption_extension", "caption_extension", "text", ".caption", "")
    yield _as("caption_extention", "caption_extension", "text", None, "its old spelling")
    yield _as("reg_data_dir", "reg", "text", None,
              "half of each batch there, as many more here: batch or steps are halved")  # fmt: skip
    yield _as("output_dir", "out", "text", None, "and output_name below it")
    yield _as("output_name", "out", "text", None, "the run folder's name")
    yield _as("save_n_epoch_ratio", "save_every_epochs", "int", None, "max_train_epochs divided by it")
    yield _as("save_last_n_epochs", "keep_last", "int", None, "")
    yield _as("save_last_n_steps", "keep_last", "int", None, "divided by save_every_n_steps, and one more")
    yield _as("sample_prompts", "sample_prompts", "text", None, "and --d, --s, --l of the first line")
    yield _as("log_with", "trackers", "text", None, "all: both")
    yield _as("token_string", "subject", "text", None, "of textual inversion")
    yield _as("init_word", "init_word", "text", None, "of textual inversion")
    yield _as("num_vectors_per_token", "num_vectors", "int", 1, "of textual inversion")
    yield _as("config_file", "", "text", None, "the file is read; the command line wins over it")
    yield _as("v_parameterization", "", "flag", False, "the base file says it; listed where v2 does not go with it")


def _no_effect() -> Iterator[Option]:
    yield from _none(
        "how it is computed, not what",
        "xformers sdpa mem_eff_attn diffusers_xformers torch_compile dynamo_backend lowram highvram "
        "cpu_offload_checkpointing max_data_loader_n_workers persistent_data_loader_workers vae_batch_size "
        "no_half_vae text_encoder_batch_size disable_mmap_load_safetensors tokenizer_cache_dir ddp_timeout "
        "ddp_gradient_as_bucket_view ddp_static_graph deepspeed zero_stage offload_optimizer_device "
        "offload_optimizer_nvme_path offload_param_device offload_param_nvme_path zero3_init_flag "
        "zero3_save_16bit_model fused_optimizer_groups use_safetensors",
    )
    yield from _none(
        "latents and texts are always kept, and latents drawn anew at each step",
        "cache_latents cache_latents_to_disk cache_text_encoder_outputs cache_text_encoder_outputs_to_disk "
        "cache_info skip_cache_check",
    )
    yield from _none("the base file says it", "v2")
    yield from _none("everything that a run needs to go on is always kept",
                     "save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state")  # fmt: skip
    yield from _none(
        "pictures are drawn at each checkpoint; they change no weight",
        "sample_every_n_steps sample_every_n_epochs sample_at_first sample_sampler",
    )
    yield from _none(
        "what is written of the run, and where",
        "logging_dir log_prefix log_tracker_name log_tracker_config log_config wandb_run_name wandb_api_key "
        "console_log_level console_log_file console_log_simple output_config debug_dataset",
    )
    yield from _none(
        "nothing is uploaded",
        "huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token "
        "huggingface_repo_visibility save_state_to_huggingface async_upload",
    )
    yield from _none("measures, and trains nothing; see validation_split",
                     "validate_every_n_steps validate_every_n_epochs max_validation_steps validation_seed")  # fmt: skip


def _no_equal() -> Iterator[Option]:
    yield from _lost("the UNet always learns; such a command is refused", "network_train_text_encoder_only")
    yield from _lost("the limits follow from the resolution; a data set file may give others",
                     "min_bucket_reso max_bucket_reso bucket_reso_steps")  # fmt: skip
    yield from _lost(
        "here the loss is divided by the mask's area, so that a small subject learns as fast as a large one; masks lie "
        "in a folder `masks` among the photos",
        "masked_loss conditioning_data_dir",
    )
    yield from _lost("a data set file can say it: [general]", "caption_separator", ",")
    yield from _lost("a data set file can say it: [general]", "keep_tokens_separator secondary_separator")
    yield from _lost("photos are learned as they are", "color_aug face_crop_aug_range")
    yield from _lost("photos are always resized by the Lanczos filter", "resize_interpolation", "lanczos")
    yield from _lost("use caption_dropout", "caption_dropout_every_n_epochs")
    yield from _lost("all words are learned from the first step", "token_warmup_step")
    yield from _lost("all words are learned from the first step", "token_warmup_min", 1)
    yield from _lost("all photos are learned; keep some in another folder", "validation_split")
    yield from _lost("name the photos' folder", "dataset_class")
    yield from _lost("set rank and alpha to those of the file (maquette inspect)", "dim_from_weights")
    yield from _lost("merge it into the base first", "base_weights base_weights_multiplier")
    yield from _lost(
        "go on with a run of maquette by maquette train --resume",
        "resume resume_from_huggingface skip_until_initial_step initial_epoch initial_step weights",
    )
    yield from _lost("there is one learning rate for the whole UNet", "block_lr")
    yield from _lost("that scheduler does not exist here",
                     "lr_scheduler_type lr_scheduler_args")  # fmt: skip
    yield from _lost("gradients are shortened all together", "fused_backward_pass")
    yield from _lost("what learns stays float32", "full_fp16 full_bf16 fp16_master_weights_and_gradients")
    yield from _lost("the base is computed in `dtype`", "fp8_base fp8_base_unet")
    yield from _lost("use huber_delta", "huber_scale", 1)
    yield from _lost("prompts are padded as the base learned them", "no_token_padding")
    yield from _lost("captions are learned as they are", "use_object_template use_style_template")
    yield from _lost("the base decides whether it paints into masks", "train_inpainting")
    yield from _lost("files are .safetensors (a whole model also a diffusers folder: maquette convert)",
                     "save_model_as", "safetensors", "diffusers_safetensors")  # fmt: skip
    yield from _lost("a file says how it was made, without this", "no_metadata training_comment")
    yield from _lost(
        "a file says how it was made, without this",
        "metadata_title metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint "
        "metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor "
        "metadata_is_negative_embedding",
    )
    yield from _lost("of other architectures",
                     "weighting_scheme logit_mean logit_std mode_scale blocks_to_swap")  # fmt: skip


OPTIONS = {option.name: option for option in _options()}
# Our key -> their option, where the value is the same in both.
SAME = {option.key: option.name for option in OPTIONS.values() if option.same}
# Values of another name: key -> (option, ours -> theirs).
WORDS: dict[str, tuple[str, dict[str, str]]] = {
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
            "schedule-free-radam": "RAdamScheduleFree",
            "schedule-free-sgd": "SGDScheduleFree",
        },
    ),
    "lr_scheduler": (
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
# What else they know: option -> theirs in small letters -> (ours, what differs; "" where nothing does).
NEAR_WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "optimizer_type": {
        "pagedadamw": ("adamw", ""),
        "pagedadamw32bit": ("adamw", ""),
        "pagedadamw8bit": ("adamw8bit", ""),
        "lion8bit": ("lion", "its moments are float32 here"),
        "pagedlion8bit": ("lion", "its moments are float32 here"),
        "sgdnesterov8bit": ("sgd", "its moments are float32 here"),
        **dict.fromkeys(
            ("dadaptation", "dadaptadampreprint", "dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptadanip",
             "dadaptlion", "dadaptsgd"),
            ("prodigy", "prodigy here, which finds its learning rate in the same way"),
        ),
    },
    "lr_scheduler": {
        "constant_with_warmup": ("constant", ""),
        "cosine_with_min_lr": ("cosine", ""),
        "adafactor": ("constant", ""),  # whose own steps fall with time: relative_step
    },
    "save_precision": {"fp32": ("fp32", "")},
    "mixed_precision": {"fp32": ("fp32", "")},
}  # fmt: skip
# What an option that is not given means to Kohya's trainer, where maquette means something else.
THEIR_DEFAULTS: dict[str, Any] = {
    "rank": 4,
    "alpha": 1.0,
    "batch_size": 1,
    "buckets": False,
    "resolution": 512,
    "lr_scheduler": "constant",
    "min_snr_gamma": 0.0,
    "text_encoder": True,
    "dtype": "fp32",
    "save_dtype": "fp32",
    "lr_scheduler_cycles": 1,
    "max_token_length": 75,
}
# Arguments of their optimizers where none is given, as far as they are not ours; and their usual weight decay.
THEIR_ARGUMENTS: dict[str, dict[str, Any]] = {
    "adafactor": {"relative_step": True, "scale_parameter": True, "warmup_init": False},
    "prodigy": {"safeguard_warmup": False, "use_bias_correction": False},
}
WEIGHT_DECAY = {"adamw": 0.01, "adamw8bit": 0.01}  # of the others 0
# Arguments that ours lack, with the value at which they change nothing.
IDLE_ARGUMENTS: dict[str, Any] = {
    "amsgrad": False, "foreach": None, "fused": None, "maximize": False, "capturable": False, "decouple": True,
    "fsdp_in_use": False, "use_triton": False, "is_paged": False, "block_wise": True, "min_8bit_size": 4096,
    "percentile_clipping": 100, "optim_bits": 32, "slice_p": 1, "differentiable": False,
}  # fmt: skip
# Sides of buckets where none are given, by the field of data.buckets.BucketRules.
BUCKET_LIMITS = {"min_size": ("min_bucket_reso", 256), "max_size": ("max_bucket_reso", 1024),
                 "step": ("bucket_reso_steps", 64)}  # fmt: skip


def neutral(value: Any) -> bool:
    """Whether a value asks for nothing: what a form writes for a field that was left alone."""
    return value in (None, "", 0, False, [], {}, "None", "none", "0", "0.0", "False", "false")
