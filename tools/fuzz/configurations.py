"""Configurations: TOML, JSON of settings and metadata, and Kohya's command lines, made of their own words."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import nasty
from .texts import encoded

_KEYS = (
    "photos",
    "base",
    "steps",
    "rank",
    "alpha",
    "learning_rate",
    "sample_prompts",
    "block_ranks",
    "trackers",
    "device",
    "resolution",
    "seed",
    "method",
    "dtype",
    "unknown",
    "out",
    "keep_steps",
    "timestamps",
    "subject",
    "image_dir",
    "batch_size",
    "num_repeats",
    "caption_extension",
    "enable_bucket",
    "keep_tokens",
    "class_tokens",
)
_TABLES = (
    "[a]",
    "[[datasets]]",
    "[[datasets.subsets]]",
    "[general]",
    "[network_arguments]",
    "]",
    "[[",
    "#",
    "\0",
    "a.b.c.d",
)


def _toml_value(rng: random.Random) -> str:
    act = rng.random()
    if act < 0.3:
        return rng.choice(
            ("1", "-1", "1e999", "nan", "true", '"man"', "'x", "[512, 512]", "{a = 1}", "1979-05-27", "0x" + "f" * 5000)
        )
    if act < 0.35:
        return rng.choice(("[" * 2000, "{a=" * 500, '"' * 3, "9" * 5000, "a." * 3000))
    return nasty.as_json(nasty.value(rng))


def _toml(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(0, 12)):
        key = rng.choice(_KEYS) if rng.random() < 0.8 else nasty.as_json(nasty.text(rng)[:60])
        lines.append(rng.choice(_TABLES) if rng.random() < 0.2 else f"{key} = {_toml_value(rng)}")
    return "\n".join(lines)


def toml_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "a.toml"
    text = _toml(rng)
    (folder / "man").mkdir()
    kind = rng.randrange(3)
    if kind == 1 and rng.random() < 0.7:
        text += '\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "man"\n'
    path.write_bytes(encoded(rng, text))

    def read() -> None:
        from maquette.config import TrainConfig
        from maquette.data.kohya_toml import read_dataset_file
        from maquette.interop.kohya import read as import_kohya
        from maquette.parsing import read_toml

        if kind == 0:
            config = TrainConfig.parse(read_toml(path), str(path))
            TrainConfig.parse(config.model_dump(exclude_unset=True), "again")
        elif kind == 1:
            read_dataset_file(path, "zkw robot")
        else:
            import_kohya.run(path)

    return read


_FORM = (
    "LoRA_type",
    "pretrained_model_name_or_path",
    "train_data_dir",
    "learning_rate",
    "network_dim",
    "network_alpha",
    "max_train_steps",
    "epoch",
    "train_batch_size",
    "optimizer",
    "optimizer_args",
    "additional_parameters",
    "max_resolution",
    "unet_lr",
    "text_encoder_lr",
    "lr_warmup",
    "lr_scheduler",
    "noise_offset",
    "caption_extension",
    "min_snr_gamma",
    "seed",
    "clip_skip",
    "sample_prompts",
    "dataset_config",
    "reg_data_dir",
    "conv_dim",
    "block_dims",
    "save_every_n_steps",
)


def json_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    kind = rng.randrange(3)
    path = folder / ("a.json", "metadata.json", "metadata.jsonl")[kind]
    if kind == 0:
        thing: Any = {"LoRA_type": "Standard", "train_data_dir": "x"} | {
            rng.choice(_FORM): rng.choice((nasty.value(rng), "1", "0", "1e-4", "AdamW"))
            for _ in range(rng.randint(0, 8))
        }
    else:
        rows = [{"file_name": "a.png", "text": "zkw"}, {"file_name": nasty.value(rng), "tags": nasty.value(rng)}]
        thing = rng.choice((rows, {"a.png": {"caption": nasty.value(rng), "tags": nasty.value(rng)}}, nasty.value(rng)))
    thing = nasty.changed(rng, thing) if rng.random() < 0.5 else thing
    lines = thing if kind == 2 and isinstance(thing, list) else [thing]
    path.write_bytes(encoded(rng, "\n".join(map(nasty.as_json, lines))))

    def read() -> None:
        from maquette.data.metadata import read_metadata
        from maquette.interop.kohya import read as import_kohya

        if kind == 0:
            import_kohya.run(path)
        else:
            metadata = read_metadata(path)
            metadata.caption(path.parent / "a.png")
            metadata.unused()

    return read


_OPTIONS = (
    "--pretrained_model_name_or_path",
    "--train_data_dir",
    "--network_module",
    "--network_dim",
    "--network_args",
    "--learning_rate",
    "--optimizer_type",
    "--optimizer_args",
    "--resolution",
    "--max_train_steps",
    "--output_dir",
    "--config_file",
    "--dataset_config",
    "--sample_prompts",
    "--lr_scheduler",
    "--noise_offset",
    "--xformers",
    "--unknown",
    "--text_encoder_lr",
    "--min_snr_gamma",
    "--save_every_n_epochs",
    "--caption_extension",
)
_WORDS = (
    "x",
    "networks.lora",
    "lycoris.kohya",
    "1e-4",
    "512,512",
    "AdamW8bit",
    "algo=loha",
    "conv_dim=8",
    '"a b"',
    "'a",
    "$HOME",
    "${X}",
    "$(id)",
    "`id`",
    "%X%",
    "^",
    "\\\n",
    "`\n",
    "&&",
    "|",
    ";",
    "<< E\na\nE\n",
    "#",
    "*",
    "~",
    "1e999",
    "[0.1, 0.2]",
    "X=1 ",
    "set X=1\n",
    "$X = 'a'\n",
    "export X=1\n",
    "for i in 1; do\n",
    "@(",
    ")",
    "\u2028",
    "-",
    "--",
    "=",
)


_PLAIN = (
    "x",
    "networks.lora",
    "lycoris.kohya",
    "1e-4",
    "512,512",
    "AdamW8bit",
    "algo=loha conv_dim=8",
    "",
    "0",
    "-1",
    "1e999",
    "8",
    "cosine",
    '"a b"',
    "'c'",
    "2",
    "0.1",
    "nan",
    "[0.1, 0.2]",
    "weight_decay=0.1 betas=.9,.99",
)
_SENSIBLE = (
    "network_module networks.lora",
    "network_dim 8",
    "network_alpha 1",
    "learning_rate 1e-4",
    "resolution 512,512",
    "max_train_steps 100",
    "optimizer_type AdamW8bit",
    "xformers",
    "mixed_precision bf16",
    "lr_scheduler cosine",
    "network_args conv_dim=8 conv_alpha=1",
    "min_snr_gamma 5",
    "text_encoder_lr 5e-5",
    "noise_offset 0.05",
    "network_module lycoris.kohya --network_args algo=loha",
    "enable_bucket",
    "output_name a",
    "seed 7",
)
_BASE = "--pretrained_model_name_or_path x --train_data_dir y "
_STARTS = (
    f"accelerate launch train_network.py {_BASE}",
    f"python sdxl_train_network.py {_BASE}",
    "train" * 1000,
    f"accelerate launch --num_cpu_threads_per_process 1 train_textual_inversion.py {_BASE}",
    "\\\n" * 500,
    f"python train_db.py {_BASE}",
    f"cd a && python train_network.py {_BASE}",
)


def kohya_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / f"train{rng.choice(('.sh', '.bat', '.ps1', '.txt', '.SH'))}"
    words = []
    for _ in range(rng.randint(0, 15)):
        if rng.random() < 0.7:
            words.append(f"--{rng.choice(_SENSIBLE)}")
            continue
        option = f"{rng.choice(_OPTIONS)}{rng.choice((' ', ' ', '='))}"
        words.append(option + (nasty.text(rng) if rng.random() < 0.05 else rng.choice(_PLAIN)))
    for _ in range(rng.choice((0, 0, 1, 2))):
        words.insert(rng.randint(0, len(words)), rng.choice(_WORDS))
    start = rng.choice(_STARTS[:2] if rng.random() < 0.8 else _STARTS)
    text = start + " ".join(words)
    text = f"{nasty.text(rng)}\n{text}" if rng.random() < 0.1 else text
    path.write_bytes(encoded(rng, text))

    def read() -> None:
        from maquette.config import TrainConfig
        from maquette.interop.kohya import read as import_kohya

        result = import_kohya.run(path)
        TrainConfig.parse(result.config | {"photos": "x"}, "what was imported")

    return read
