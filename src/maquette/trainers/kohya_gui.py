"""Every field of kohya_ss, the graphical interface, that is no option of sd-scripts by the same name.

Its other fields are options of trainers.kohya and pass through. The names are those of its version 26.
"""

from __future__ import annotations

from collections.abc import Iterator

from .kohya import OPTIONS, Option

# Other names for options of sd-scripts.
RENAMED = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "image_folder": "train_data_dir",  # of the tab Finetuning
    "lora_network_weights": "network_weights",  # of older versions, as those below
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
}
# What a checked box or a kind of network says of the architecture; all of them are refused.
ARCHITECTURES = {
    "flux1_checkbox": "Flux",
    "sd3_checkbox": "Stable Diffusion 3",
    "hunyuan_image_checkbox": "HunyuanImage",
    "anima_checkbox": "Anima",
    "lumina_checkbox": "Lumina",
}
_LORA_FIELDS = (
    "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight",
    "up_lr_weight", "block_lr_zero_threshold", "rank_dropout", "module_dropout",
)  # fmt: skip
_LYCORIS_FIELDS = (
    "rank_dropout", "module_dropout", "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm", "bypass_mode",
    "conv_dim", "conv_alpha", "LyCORIS_preset", "dora_wd",
)  # fmt: skip
# Its kinds of networks: the module, the algorithm, and which of its fields become network_args.
NETWORKS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Standard": ("networks.lora", "", _LORA_FIELDS),
    "Kohya LoCon": ("networks.lora", "", (*_LORA_FIELDS, "conv_dim", "conv_alpha")),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon", _LYCORIS_FIELDS),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha", _LYCORIS_FIELDS),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr", (*_LYCORIS_FIELDS, "factor", "decompose_both", "use_cp")),
}
OLD_NETWORKS = {"LoCon": "LyCORIS/LoCon"}
LORA_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
NETWORK_FIELDS = tuple(dict.fromkeys([*(name for _, _, names in NETWORKS.values() for name in names), *LORA_PLUS]))
GUI_ARGUMENTS = {"LyCORIS_preset": "preset"}  # of another name in network_args
# What the form shows, and so passes on, where a file lacks the field; elsewhere that is sd-scripts' own default.
DEFAULTS = {"enable_bucket": True, "max_bucket_reso": 2048, "caption_extension": ".txt"}
# By what the tabs are told apart: the tab LoRA writes LoRA_type.
INVERSION_FIELDS = ("token_string", "init_word", "num_vectors_per_token")
FINE_TUNING_FIELDS = ("train_dir", "image_folder", "caption_metadata_filename", "latent_metadata_filename",
                      "create_caption", "create_buckets", "generate_caption_database")  # fmt: skip

_OTHER = (
    "t5xxl ae clip_l clip_g flux1_clip_l flux1_t5xxl discrete_flow_shift model_prediction_type timestep_sampling "
    "split_mode train_blocks t5xxl_max_token_length enable_all_linear guidance_scale mem_eff_save apply_t5_attn_mask "
    "split_qkv train_t5xxl single_blocks_to_swap double_blocks_to_swap show_timesteps show_timesteps_resolution "
    "img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim single_mod_dim in_dims "
    "train_double_block_indices train_single_block_indices clip_g_dropout_rate pos_emb_random_crop_rate save_clip "
    "save_t5xxl t5xxl_device t5xxl_dtype model_type blockwise_fused_optimizers flux_fused_backward_pass "
    "train_lora_ggpo ggpo_sigma ggpo_beta"
)
_OTHER_FIELDS = {
    "flux1_": "cache_text_encoder_outputs cache_text_encoder_outputs_to_disk",
    "sd3_": "cache_text_encoder_outputs cache_text_encoder_outputs_to_disk fused_backward_pass clip_l "
    "clip_l_dropout_rate disable_mmap_load_safetensors enable_scaled_pos_embed t5_dropout_rate t5xxl "
    "text_encoder_batch_size",
    "hunyuan_": "image_cache_text_encoder_outputs image_cache_text_encoder_outputs_to_disk text_encoder byt5 vae "
    "discrete_flow_shift model_prediction_type timestep_sampling sigmoid_scale attn_mode split_attn fp8_scaled fp8_vl "
    "text_encoder_cpu vae_chunk_size",
    "anima_": "cache_text_encoder_outputs cache_text_encoder_outputs_to_disk qwen3 vae llm_adapter_path "
    "t5_tokenizer_path discrete_flow_shift timestep_sampling sigmoid_scale qwen3_max_token_length t5_max_token_length "
    "attn_mode split_attn vae_chunk_size vae_disable_cache unsloth_offload_checkpointing qwen_image_vae_2d compile "
    "torch_compile compile_backend compile_mode compile_dynamic compile_fullgraph compile_cache_size_limit",
    "lumina_": "cache_text_encoder_outputs cache_text_encoder_outputs_to_disk gemma2 ae discrete_flow_shift "
    "model_prediction_type timestep_sampling sigmoid_scale gemma2_max_token_length system_prompt use_flash_attn "
    "use_sage_attn",
}


def _fields() -> Iterator[Option]:
    for theirs, option in RENAMED.items():
        yield Option(theirs, "mapped", f"as {option}", OPTIONS[option].key)
    yield Option("LoRA_type", "mapped", f"the method; of {', '.join(NETWORKS)}, others are refused", "method")
    for name in NETWORK_FIELDS:
        yield Option(name, "mapped", "of the chosen kind of network: network_args", "")
    yield Option("epoch", "mapped", "where neither max_train_epochs nor max_train_steps is above 0", "epochs")
    yield Option("lr_warmup", "mapped", "percent of the steps, where lr_warmup_steps is 0", "warmup_steps")
    yield Option("noise_offset_type", "mapped", "which of the noises is used: Original or Multires", "")
    yield Option("sdxl", "mapped", "the script of SDXL", "")
    yield Option("sdxl_checkbox", "mapped", "the script of SDXL", "")
    yield Option("additional_parameters", "mapped", "further options of the command line, which win", "")
    yield Option("num_processes", "mapped", "batch_size is of all processes here", "batch_size")
    yield Option("template", "mapped", "as use_object_template and use_style_template", "")
    yield Option("t5xxl_lr", "mapped", "above 0: the second rate of text_encoder_lr", "text_encoder_learning_rate")
    yield Option("train_dir", "mapped", "the folder of the metadata file, in_json", "photos")
    yield Option("caption_metadata_filename", "mapped", "the metadata file, in_json", "photos")
    yield Option("latent_metadata_filename", "mapped", "in_json, where use_latent_files is Yes", "photos")
    yield Option("use_latent_files", "mapped", "which of the two metadata files is read", "")
    yield Option("use_wandb", "mapped", "as log_with", "trackers")
    for name, what in ARCHITECTURES.items():
        yield Option(name, "no equal", f"{what} is refused")
    for names, why in (
        ("save_as_bool file_path model_list", "the form's own"),
        ("multi_gpu gpu_ids main_process_port num_machines num_cpu_threads_per_process extra_accelerate_launch_args "
         "dynamo_mode dynamo_use_fullgraph dynamo_use_dynamic lowvram sdxl_no_half_vae",
         "how it is computed, not what"),
        ("sdxl_cache_text_encoder_outputs", "texts are always kept"),
        ("batch_size full_path create_caption create_buckets generate_caption_database generate_image_buckets",
         "of the preparation that the form runs before training"),
        ("constrain rescaled train_on_input unit", "of kinds of networks that are refused; not passed on for others"),
        ("conv_dims conv_alphas", "of older versions, without use"),
        (_OTHER, "of other architectures; not passed on"),
        *((" ".join(prefix + name for name in names.split()), "of other architectures; not passed on")
          for prefix, names in _OTHER_FIELDS.items()),
    ):  # fmt: skip
        for name in names.split():
            yield Option(name, "no effect", why)


FIELDS = {option.name: option for option in _fields()}
