"""`maquette import kohya`: a sd-scripts command line, its TOML, or the GUI's JSON as a maquette configuration."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config import TrainConfig, toml_text
from ..data.buckets import rules_for
from ..errors import MaquetteError
from . import kohya_network
from .kohya_keys import (
    BUCKET_LIMITS,
    GUI_ARGUMENTS,
    GUI_FIELDS,
    GUI_METHODS,
    GUI_NAMES,
    GUI_ONLY,
    NEEDLESS,
    OPTIMIZER_ARGS,
    SAME,
    THEIR_DEFAULTS,
    WEIGHT_DECAY,
    WORDS,
    neutral,
)

HEREDOC = re.compile(r"^cat\s*>\s*(\S+)\s*<<\s*'?(\w+)'?\n(.*?)^\2$\n?", re.MULTILINE | re.DOTALL)
SAMPLE = re.compile(r"\s--(\w)\s+(\S+)")


@dataclass
class ImportResult:
    """A configuration and what of the file it does not express."""

    config: dict[str, Any]
    toml: str
    needless: list[str] = field(default_factory=list)  # how they compute, not what
    no_equal: list[str] = field(default_factory=list)  # "key = value": has no counterpart here

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(path: str | Path) -> ImportResult:
    """Read a shell file, TOML or JSON. Raises MaquetteError when it is none of them or names no photos."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MaquetteError(f"{path} cannot be read as text: {error}.") from error
    files: dict[str, str] = {}
    if path.suffix == ".json":
        given = _from_gui(_parsed(json.loads, text, path))
    elif path.suffix == ".toml":
        given = _flat(_parsed(tomllib.loads, text, path))
    else:
        files = {name: body for name, _, body in HEREDOC.findall(text)}
        given = _from_command(HEREDOC.sub("", text), path)
    return _Reader(path, given, files).result()


def _parsed(parse: Any, text: str, path: Path) -> dict[str, Any]:
    try:
        values = parse(text)
    except ValueError as error:
        raise MaquetteError(f"{path} is not valid {path.suffix[1:].upper()}: {error}.") from error
    if not isinstance(values, dict):
        raise MaquetteError(f"{path} holds no keys and values.")
    return values


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Kohya's trainer passes over section names of its configuration file."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _from_command(text: str, path: Path) -> dict[str, Any]:
    """Options behind the training script; of several lines that with the script."""
    lines = re.sub(r"[\\^`]\r?\n", " ", text).splitlines()  # continued as in sh, cmd and PowerShell
    found = [line for line in lines if re.search(r"\w*train\w*\.py", line) and not line.lstrip().startswith("#")]
    if len(found) != 1:
        raise MaquetteError(f"{path} has {len(found)} command lines with one of Kohya's training scripts, not one.")
    words = shlex.split(found[0], comments=True)
    script = next(i for i, word in enumerate(words) if re.search(r"train\w*\.py$", word))
    given: dict[str, Any] = {"script": Path(words[script]).name}
    key = None
    for word in words[script + 1 :]:
        if re.match(r"--[a-zA-Z]", word):
            key, _, value = word[2:].partition("=")
            given[key] = value if value else True
        elif key is None:
            raise MaquetteError(f"{path}: {word!r} belongs to no option.")
        else:
            given[key] = word if given[key] is True else [*_listed(given[key]), word]
    return given


def _from_gui(values: dict[str, Any]) -> dict[str, Any]:
    kind = values.get("LoRA_type", "Standard")
    if kind not in GUI_METHODS:
        raise MaquetteError(f"LoRA_type {kind!r} has no equal here; known are {', '.join(GUI_METHODS)}.")
    module, algo, fields = GUI_METHODS[kind]
    given = {GUI_NAMES.get(key, key): value for key, value in values.items() if not neutral(value)}
    if given.get("max_train_steps"):
        given.pop("max_train_epochs", None)  # as the GUI has it
    if not given.get("seed"):
        given.pop("seed", None)
    wanted = {"algo": algo} if algo else {}
    for name in (*fields, *(name for name in given if name.startswith("loraplus_"))):
        if name in given:
            wanted[GUI_ARGUMENTS.get(name, name)] = str(given[name])
    given = {key: value for key, value in given.items() if key not in GUI_FIELDS and not key.startswith("loraplus_")}
    percent = float(values.get("lr_warmup") or 0)
    if percent and "lr_warmup_steps" not in given and given.get("max_train_steps"):
        given["lr_warmup_steps"] = int(percent / 100 * int(given["max_train_steps"]))
    given["network_args"] = [f"{key}={value}" for key, value in wanted.items()]
    given["network_module"] = module
    for key in GUI_ONLY:
        given.pop(key, None)
    return given


class _Reader:
    """Takes one option after the other; what is left over has no equal."""

    def __init__(self, path: Path, given: dict[str, Any], files: dict[str, str]) -> None:
        self.path, self.files = path, files
        self.left = dict(given)
        self.made: dict[str, Any] = dict(THEIR_DEFAULTS)
        self.no_equal: list[str] = []

    def result(self) -> ImportResult:
        script = self.left.pop("script", "train_network.py")
        self._photos()
        self._method(script)
        self._numbers()
        self._out()
        self._samples()
        needless = sorted(key for key in self.left if key in NEEDLESS)
        self.no_equal += [
            f"{key} = {value}" for key, value in self.left.items() if key not in NEEDLESS and not neutral(value)
        ]
        config = TrainConfig.parse(self.made, str(self.path))
        chosen = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        toml = toml_text(chosen)
        return ImportResult(chosen, toml, needless, self.no_equal)

    def _photos(self) -> None:
        dataset = self.left.get("dataset_config")
        if dataset in self.files:
            return self._dataset(_parsed(tomllib.loads, self.files[str(dataset)], Path(str(dataset))))
        photos = dataset or self.left.pop("train_data_dir", None)
        if not photos:
            raise MaquetteError(f"{self.path} names no photos: it has neither train_data_dir nor dataset_config.")
        self.made["photos"] = photos

    def _dataset(self, values: dict[str, Any]) -> None:
        """A data set with one folder of photos; the options of its levels are those of the command line."""
        sets = values.pop("datasets", [])
        subsets = [subset for one in sets for subset in one.pop("subsets", [])]
        if len(sets) != 1 or len(subsets) != 1:
            raise MaquetteError(f"{self.path}: its data set has several folders; keep it in a file and name that.")
        merged = {**values.get("general", {}), **sets[0], **subsets[0]}
        self.made["photos"] = merged.pop("image_dir", "")
        for theirs, ours in (("class_tokens", "subject"), ("num_repeats", "repeats")):
            if theirs in merged:
                self.made[ours] = merged.pop(theirs)
        if "batch_size" in merged:
            merged["train_batch_size"] = merged.pop("batch_size")
        self.left |= merged

    def _method(self, script: str) -> None:
        words = (str(word).partition("=") for word in _words(self.left.pop("network_args", [])))
        arguments = {key: text for key, equals, text in words if equals}
        if script in ("train_db.py", "sdxl_train.py", "fine_tune.py"):
            self.made["method"] = "dreambooth"
            trains = self.left.pop("train_text_encoder", False)
            stops = int(self.left.pop("stop_text_encoder_training", 0) or 0) == -1
            self.made["text_encoder"] = not stops if script == "train_db.py" else bool(trains)
            rates = [self.left.pop(f"learning_rate_te{number}", None) for number in ("", 1, 2)]
            found = [rate for rate in rates if rate is not None]
            if found:
                self.left["text_encoder_lr"] = found[0]
            if len(set(map(str, found))) > 1:
                self.no_equal.append(f"learning_rate_te2 = {found[-1]}: both text encoders learn at {found[0]}")
        elif "textual_inversion" in script:
            self._word()
        else:
            module = str(self.left.get("network_module", "networks.lora"))
            reader = kohya_network.Reader(module, arguments, str(self.path))
            rank = int(self.left.get("network_dim", self.made["rank"]))
            alpha = float(self.left.get("network_alpha", self.made["alpha"]))
            only = bool(self.left.get("network_train_unet_only"))
            self.made |= reader.config(rank, alpha, not only)
            self.no_equal += reader.lost
            arguments = {}
            if self.made["method"] == "loha" and not neutral(self.left.get("network_dropout")):
                self.no_equal.append(f"network_dropout = {self.left.pop('network_dropout')}: LoHa has none here")
        if self.made["method"] in ("dreambooth", "textual-inversion"):
            for key in ("rank", "alpha"):
                self.made.pop(key)
        self.no_equal += [f"network_args {key}={value}" for key, value in arguments.items()]

    def _word(self) -> None:
        self.made["method"] = "textual-inversion"
        self.made["text_encoder"] = False
        for theirs, ours in (
            ("token_string", "subject"),
            ("init_word", "init_word"),
            ("num_vectors_per_token", "vectors"),
        ):
            if theirs in self.left:
                self.made[ours] = self.left.pop(theirs)
        if "learning_rate" in self.left:
            self.made["embedding_learning_rate"] = self.left.pop("learning_rate")

    def _numbers(self) -> None:
        if (rate := self.left.pop("learning_rate", None)) is not None:
            self.made["learning_rate"] = rate
            self.made["text_encoder_learning_rate"] = rate
        if self.left.get("save_every_n_steps") and self.left.get("save_every_n_epochs"):
            self.no_equal.append(f"save_every_n_epochs = {self.left.pop('save_every_n_epochs')}: besides steps")
        for ours, theirs in SAME.items():
            if theirs in self.left:
                self.made[ours] = self.left.pop(theirs)
        for ours, (theirs, words) in WORDS.items():
            if theirs in self.left:
                self._word_for(ours, theirs, {value.lower(): key for key, value in words.items()})
        if self.made["method"] != "textual-inversion":
            self.made.setdefault("learning_rate", 2e-6)  # Kohya's
        if "epochs" not in self.made:
            self.made.setdefault("steps", 1600)  # Kohya's
        else:
            self.made.pop("steps", None)
        batch = int(self.left.pop("train_batch_size", 1)) * int(self.made.get("gradient_accumulation", 1))
        self.made["batch_size"] = batch
        self.made["buckets"] = bool(self.left.pop("enable_bucket", False))
        if "resolution" in self.left:
            self._resolution(self.left.pop("resolution"))
        if self.made["buckets"]:
            rules = rules_for(int(self.made["resolution"]))
            for ours, (theirs, usual) in BUCKET_LIMITS.items():
                given = int(self.left.pop(theirs, usual))
                if given != getattr(rules, ours):
                    self.no_equal.append(f"{theirs} = {given}: {getattr(rules, ours)} here")
        for theirs, _ in BUCKET_LIMITS.values():
            self.left.pop(theirs, None)  # without buckets they mean nothing
        only = self.left.pop("network_train_unet_only", False)
        if only or self.made["method"] == "textual-inversion":
            self.made["text_encoder"] = False
        if not self.made["text_encoder"]:
            self.made.pop("text_encoder_learning_rate", None)
        optimizer = str(self.made.get("optimizer", "adamw"))
        self.made["weight_decay"] = WEIGHT_DECAY.get(optimizer, 0.0)
        fixed = dict(OPTIMIZER_ARGS.get(optimizer, {}))
        for word in _words(self.left.pop("optimizer_args", [])):
            key, _, value = str(word).partition("=")
            if key == "weight_decay":
                self.made["weight_decay"] = value
            elif key in fixed:
                fixed[key] = (fixed[key][0], value)
            else:
                self.no_equal.append(f"optimizer_args {word}")
        self.no_equal += [f"optimizer_args {key}={theirs}: {ours} here" for key, (ours, theirs) in fixed.items()
                          if kohya_network.value(theirs) != kohya_network.value(ours)]  # fmt: skip
        if self.left.get("log_with") in ("tensorboard", "wandb"):
            self.made["trackers"] = [self.left.pop("log_with")]

    def _word_for(self, ours: str, theirs: str, words: dict[str, str]) -> None:
        value = str(self.left.pop(theirs))
        if value.lower() in words:
            self.made[ours] = words[value.lower()]
        else:
            raise MaquetteError(f"{self.path}: {theirs} = {value} has no equal here; known are {', '.join(words)}.")

    def _resolution(self, value: Any) -> None:
        sides = [int(side) for side in re.split(r"[,x]", str(value).strip("[]() "))]
        width, height = sides[0], sides[-1]
        if width == height:
            self.made["resolution"] = width
        else:
            self.made["resolution"] = max(16, round((width * height) ** 0.5 / 8) * 8)
            self.no_equal.append(f"resolution = {value}: a square of the same area instead")

    def _out(self) -> None:
        folder, name = self.left.pop("output_dir", None), self.left.pop("output_name", None)
        if folder is not None:
            self.made["out"] = (
                folder if name is None or Path(str(folder)).name == name else str(Path(str(folder)) / str(name))
            )
        elif name is not None:
            self.made["out"] = f"runs/{name}"
        window, files = self.left.pop("save_last_n_steps", None), self.left.pop("save_last_n_epochs", None)
        if window is not None and self.made.get("save_every_steps"):
            self.made["keep_last"] = int(window) // int(self.made["save_every_steps"]) + 1
        elif files is not None and self.made.get("save_every_epochs"):
            self.made["keep_last"] = max(1, int(files))

    def _samples(self) -> None:
        source = self.left.pop("sample_prompts", None)
        self.left.pop("sample_every_n_steps", None)
        self.left.pop("sample_every_n_epochs", None)
        self.left.pop("sample_at_first", None)
        self.left.pop("sample_sampler", None)
        if source is None:
            self.made["sample_prompts"] = []
            return
        text = self.files.get(str(source))
        if text is None and Path(str(source)).is_file():
            text = Path(str(source)).read_text(encoding="utf-8")
        if text is None and "\n" not in str(source) and str(source).endswith((".txt", ".toml", ".json")):
            raise MaquetteError(f"{self.path}: its sample_prompts file {source} is not there.")
        lines = [line.strip() for line in (text if text is not None else str(source)).splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        self.made["sample_prompts"] = [line.split(" --")[0].strip() for line in lines]
        flags = dict(SAMPLE.findall(f" {lines[0]}")) if lines else {}
        for flag, ours in (("d", "sample_seed"), ("s", "sample_steps"), ("l", "sample_cfg_scale")):
            if flag in flags:
                self.made[ours] = flags[flag]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _words(value: Any) -> list[str]:
    return value if isinstance(value, list) else shlex.split(str(value))
