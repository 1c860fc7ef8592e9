"""A configuration that kohya_ss, the graphical interface, saved: the options it would give the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import MaquetteError
from ...trainers import kohya_gui as gui
from ...trainers.kohya import OPTIONS, neutral
from .values import Values
from .words import listed, options

_OWN_MEANING = ("LoRA_type", "epoch", "lr_warmup", "lr_warmup_steps", "max_train_steps", "max_train_epochs", "unet_lr",
                "text_encoder_lr", "t5xxl_lr", "num_processes", "additional_parameters", "template", "xformers",
                "noise_offset_type", "use_wandb")  # fmt: skip


@dataclass
class Form:
    """script: the trainer's. notes: what has no equal, in whole lines."""

    given: dict[str, Any]
    script: str
    processes: int = 1
    notes: list[str] = field(default_factory=list)


def read(values: dict[str, Any], source: str) -> Form:
    """What the interface passes on for the values of its form. Fields of what was not chosen are left over there, and
    mean nothing. Raises MaquetteError naming the field for another architecture, an unknown kind, or no number.
    """
    values = _today(values)
    for box, name in gui.ARCHITECTURES.items():
        if values.get(box) is True:
            raise MaquetteError(f"{source} is for {name} ({box}); maquette trains Stable Diffusion 1, 2 and XL.")
    script = _script(values)
    given = {gui.RENAMED.get(key, key): value for key, value in values.items() if key not in _OWN_MEANING}
    given = {key: value for key, value in given.items() if key not in gui.FIELDS}
    form = Form(given, script)
    for key, value in gui.DEFAULTS.items():
        if key not in given:
            given[key] = value
    _length(values, form, source)
    _noise(values, given, script)
    if "network" in script:
        _network(values, given, source)
        _rates(values, given, source)
    else:
        _whole_model(values, given, source, form)
    if not number(values.get("seed", 0), "seed", source):
        given.pop("seed", None)  # 0: another at each start
    form.processes = max(1, int(number(values.get("num_processes", 1), "num_processes", source)))
    _zeros(form)
    _more(values, form, source)
    form.given = {key: value for key, value in given.items() if value not in ("", None, [], {})}
    return form


def _today(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of older versions as today's."""
    values = dict(values)
    kind = values.get("LoRA_type")
    if kind is not None and not isinstance(kind, str):
        kind = values["LoRA_type"] = str(kind)[:60]
    if "LoRA_type" not in values and "network_dim" in values:
        kind = values["LoRA_type"] = "Standard"  # of the first versions
    if kind is not None:
        values["LoRA_type"] = gui.OLD_NETWORKS.get(str(kind), str(kind))
    if str(values.get("use_wandb", "")).lower() == "true":
        values["log_with"] = "wandb"
    if not values.get("optimizer") and "use_8bit_adam" in values:
        values["optimizer"] = "AdamW8bit" if values["use_8bit_adam"] else "AdamW"
    values.pop("use_8bit_adam", None)
    return values


def _zeros(form: Form) -> None:
    """The interface passes on no number that is 0 or false: the trainer's own default counts, which may be another."""
    given = form.given
    for name, value in list(given.items()):
        option = OPTIONS.get(name)
        if option is None or option.kind not in ("int", "float") or not isinstance(value, int | float) or value != 0:
            continue
        usual = "learning_rate" if name.startswith("learning_rate_te") else option.default
        if usual and value is not False and _counts(name, form):
            form.notes.append(f"{name} = 0: kohya_ss passes no 0 on, so that it becomes {usual}")
        if usual or value is False:
            del given[name]


def _counts(name: str, form: Form) -> bool:
    """Whether a number of the form, whatever it is, changes the training."""
    given = form.given
    if name.startswith("learning_rate_te"):
        trained = given.get("train_text_encoder", form.script == "train_db.py")
        return bool(trained) and given.get("stop_text_encoder_training") != -1
    return {
        "network_alpha": True,
        "max_grad_norm": True,
        "learning_rate": "network" not in form.script,
        "prior_loss_weight": not neutral(given.get("reg_data_dir")),
        "multires_noise_discount": not neutral(given.get("multires_noise_iterations")),
        "lr_scheduler_power": given.get("lr_scheduler") == "polynomial",
    }.get(name, False)


def _is_fine_tuning(values: dict[str, Any]) -> bool:
    return any(name in values for name in gui.FINE_TUNING_FIELDS)


def _script(values: dict[str, Any]) -> str:
    """The tab that wrote the file, by the fields that only it has, and the script that it starts."""
    xl = "sdxl_" if values.get("sdxl") is True or values.get("sdxl_checkbox") is True else ""
    if "LoRA_type" in values:
        return f"{xl}train_network.py"
    if any(name in values for name in gui.INVERSION_FIELDS):
        return f"{xl}train_textual_inversion.py"
    if xl:
        return "sdxl_train.py"
    return "fine_tune.py" if _is_fine_tuning(values) else "train_db.py"


def number(value: Any, name: str, source: str) -> float:
    """A number of the form; an empty field is 0."""
    if neutral(value):
        return 0.0
    return Values({}, source).as_number(name, value)


def _length(values: dict[str, Any], form: Form, source: str) -> None:
    """How long, in the order of the form: epochs, else steps, else its own field `epoch`; and the warm-up.

    The tab Finetuning takes half as many steps where photos are mirrored.
    """
    given, named = form.given, neutral(values.get("dataset_config"))
    parts = 2 if named and _is_fine_tuning(values) and not neutral(values.get("flip_aug")) else 1

    def whole(name: str) -> int:
        return int(number(values.get(name), name, source))

    if whole("max_train_epochs"):
        given["max_train_epochs"] = whole("max_train_epochs")
    elif whole("max_train_steps"):
        given["max_train_steps"] = -(-whole("max_train_steps") // parts)
    elif "epoch" in values and named:
        given["max_train_epochs"] = -(-whole("epoch") // parts)
        if whole("epoch") % parts:
            form.notes.append(f"epoch = {whole('epoch')}: half of it there, for flip_aug is set")
    percent = number(values.get("lr_warmup"), "lr_warmup", source)
    if steps := whole("lr_warmup_steps"):
        given["lr_warmup_steps"] = steps
    elif percent:
        given["lr_warmup_steps"] = f"{percent:g}%"
    if values.get("lr_scheduler_num_cycles") == "":
        given["lr_scheduler_num_cycles"] = whole("epoch") or 1
    for name in ("max_timestep", "vae_batch_size", "save_every_n_epochs", "save_every_n_steps", "save_last_n_epochs",
                 "save_last_n_steps", "clip_skip", "min_snr_gamma", "scale_weight_norms"):  # fmt: skip
        if neutral(given.get(name)):
            given.pop(name, None)
    for name in ("xformers", "sdpa"):
        given.pop(name, None)


def _noise(values: dict[str, Any], given: dict[str, Any], script: str) -> None:
    """The tab LoRA passes on the chosen kind of noise only; the others pass on both."""
    if "network" not in script:
        return
    pyramid = values.get("noise_offset_type", "Original") == "Multires"
    for name in ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale") if pyramid else (
        "multires_noise_iterations", "multires_noise_discount"):  # fmt: skip
        given.pop(name, None)


def _network(values: dict[str, Any], given: dict[str, Any], source: str) -> None:
    kind = values["LoRA_type"]
    if kind not in gui.NETWORKS:
        raise MaquetteError(f"{source}: LoRA_type {kind!r} has no equal here; known are {', '.join(gui.NETWORKS)}.")
    module, algorithm, fields = gui.NETWORKS[kind]
    wanted = {"algo": algorithm} if algorithm else {}
    for name in (*fields, *gui.LORA_PLUS):
        if not neutral(value := values.get(name)):
            wanted[gui.GUI_ARGUMENTS.get(name, name)] = str(value)
    given["network_module"] = module
    given["network_args"] = [f"{key}={value}" for key, value in wanted.items()]
    for name in ("stop_text_encoder_training", "train_text_encoder"):  # of the other tabs
        given.pop(name, None)


def _rates(values: dict[str, Any], given: dict[str, Any], source: str) -> None:
    """A rate of 0 leaves that part untrained, unless both are 0, when learning_rate stands for both."""
    unet = number(values.get("unet_lr"), "unet_lr", source)
    text = number(values.get("text_encoder_lr"), "text_encoder_lr", source)
    second = number(values.get("t5xxl_lr"), "t5xxl_lr", source)
    if unet:
        given["unet_lr"] = unet
    if text:
        given["text_encoder_lr"] = [text, second] if second else [text]
    zero = {name for name in ("unet_lr", "text_encoder_lr") if name in values and not neutral_text(values[name])}
    if "text_encoder_lr" in zero and unet and not text:
        given["network_train_unet_only"] = True
    if "unet_lr" in zero and text and not unet:
        given["network_train_text_encoder_only"] = True


def neutral_text(value: Any) -> bool:
    """Whether a field was left empty, rather than set to 0."""
    return value is None or value == ""


def _whole_model(values: dict[str, Any], given: dict[str, Any], source: str, form: Form) -> None:
    """The tabs Dreambooth and Finetuning, and Textual Inversion, which has no rates of its own."""
    if form.script in ("fine_tune.py", "sdxl_train.py") and not neutral(values.get("train_dir")):
        latents = values.get("use_latent_files") == "Yes" and not neutral(values.get("latent_metadata_filename"))
        name = values.get("latent_metadata_filename" if latents else "caption_metadata_filename")
        if not neutral(name):
            folder = str(values["train_dir"]).rstrip("/\\")
            given["in_json"] = f"{folder}{chr(92) if chr(92) in folder else '/'}{name}"
            given["enable_bucket"] = True
    for name in ("learning_rate_te1", "learning_rate_te2") if not form.script.startswith("sdxl") else (
        "learning_rate_te",):  # fmt: skip
        given.pop(name, None)
    if form.script == "sdxl_train.py" and not _is_fine_tuning(values):  # the tab Dreambooth has no box for it
        rates = [number(values.get(name), name, source) for name in ("learning_rate_te1", "learning_rate_te2")]
        given["train_text_encoder"] = any(rate > 0 for rate in rates)
    if "inversion" in form.script:
        given.pop("caption_dropout_rate", None)  # which that tab does not pass on
    percent = number(given.pop("stop_text_encoder_training", 0), "stop_text_encoder_training", source)
    if percent < 0:
        given["stop_text_encoder_training"] = -1
    elif percent and form.script == "train_db.py":
        form.notes.append(f"stop_text_encoder_training = {percent:g} %: the text encoder learns to the end here")
    for name, option in (("object template", "use_object_template"), ("style template", "use_style_template")):
        if values.get("template") == name:
            given[option] = True


def _more(values: dict[str, Any], form: Form, source: str) -> None:
    """The field for further options, as the form cuts it: at spaces, without quotation marks. They win."""
    form.given |= options(listed(values.get("additional_parameters")), f"{source}: additional_parameters")
