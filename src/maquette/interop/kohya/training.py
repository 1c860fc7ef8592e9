"""How a Kohya configuration learns: rates, length, schedule, optimizer, batches and kinds of noise."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from ...config import OPTIMIZER_ARGS
from ...trainers import kohya

if TYPE_CHECKING:
    from .read import _Reader

KOHYAS_STEPS, KOHYAS_RATE = 1600, 2e-6  # where none are given
_MODULES = ("torch.optim.", "bitsandbytes.optim.", "transformers.optimization.", "prodigyopt.", "schedulefree.")


def read(reader: _Reader) -> None:
    """Take the options of learning out of `reader.values` into `reader.made`."""
    _length(reader)
    _rates(reader)
    _optimizer(reader)
    _schedule(reader)
    _batch(reader)
    _noise(reader)


def words(reader: _Reader, key: str) -> None:
    """An option whose values have other names here. Raises MaquetteError for one that has none."""
    option, table = kohya.WORDS[key]
    given = reader.values.text(option)
    if given is None:
        return
    known = {theirs.lower(): ours for ours, theirs in table.items()}
    near = kohya.NEAR_WORDS.get(option, {})
    bare = given.rpartition(".")[2].lower() if given.startswith(_MODULES) else given.lower()
    if bare in known:
        reader.made[key] = known[bare]
    elif bare in near:
        reader.made[key], differs = near[bare]
        if differs:
            reader.lose(option, given, differs)
    else:
        raise reader.refuse(f"{option} = {given[:60]} has no equal here; known are {', '.join(table.values())}.")


def _length(reader: _Reader) -> None:
    """Epochs win over steps, as there."""
    values, made = reader.values, reader.made
    epochs, steps = values.whole("max_train_epochs"), values.whole("max_train_steps")
    if epochs:
        made["epochs"] = epochs
    else:
        made["steps"] = KOHYAS_STEPS if steps is None else steps


def _rates(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    given = values.number("learning_rate")
    rate = KOHYAS_RATE if given is None else given
    if made["method"] == "textual-inversion":
        made |= {"text_encoder": False, "embedding_learning_rate": rate}
        return
    text: list[float | None]
    if made["method"] == "dreambooth":
        unet, names = rate, _whole_model(reader)
        text = [rate if (found := values.number(name)) is None else found for name in names]
    else:
        own = values.number("unet_lr")
        unet, names = rate if own is None else own, ["text_encoder_lr"]
        text = [values.as_number("text_encoder_lr", word.strip("[], ")) for word in values.words("text_encoder_lr")]
        text = text or [rate]
    if unet == 0:
        raise reader.refuse("unet_lr is 0, so that the text encoder learns alone; here the UNet always learns.")
    made["learning_rate"] = unet
    if not any(text):
        made["text_encoder"] = False
    if not made["text_encoder"]:
        return
    first = next(found for found in text if found)
    made["text_encoder_learning_rate"] = first
    if len(set(text)) > 1:
        reader.lose(names[-1], text if len(names) == 1 else text[-1], f"both text encoders learn at {first}")


def _whole_model(reader: _Reader) -> list[str]:
    """Whether the text encoders learn, and the options of their rates, which each script has of its own."""
    values, made, script = reader.values, reader.made, reader.source.script
    flag, stop = values.flag("train_text_encoder"), values.whole("stop_text_encoder_training")
    old = script == "train_db.py" or (not script and flag is None)
    made["text_encoder"] = stop is None or stop > 0 if old else bool(flag)
    if made["text_encoder"] and old and stop and stop < made.get("steps", math.inf):
        reader.lose("stop_text_encoder_training", stop, "the text encoder learns to the end here")
    both = ["learning_rate_te1", "learning_rate_te2"]
    return both if reader.xl or any(name in values for name in both) else ["learning_rate_te"]


def _optimizer(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    for flag, name in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if values.flag(flag) and "optimizer_type" not in values:
            values.left["optimizer_type"] = name
    theirs = values.left.get("optimizer_type")
    words(reader, "optimizer")
    optimizer = made.get("optimizer", "adamw")
    made["weight_decay"] = kohya.WEIGHT_DECAY.get(optimizer, 0.0)
    ours = OPTIMIZER_ARGS[optimizer]
    usual = kohya.THEIR_ARGUMENTS.get(optimizer, {})
    named = kohya.WORDS["optimizer"][1][optimizer].lower()
    chosen: dict[str, Any] = dict(usual) if str(theirs).lower().endswith(named) else {}
    for word in values.words("optimizer_args"):
        name, equals, text = word.partition("=")
        value = _literal(text)
        if name == "weight_decay" and equals:
            made["weight_decay"] = values.as_number("optimizer_args weight_decay", value)
        elif name in ours:
            chosen[name] = value
        elif not equals or name not in kohya.IDLE_ARGUMENTS or kohya.IDLE_ARGUMENTS[name] != value:
            reader.no_equal.append(f"optimizer_args {word}")
    kept = {name: value for name, value in chosen.items() if not _equal(value, ours[name])}
    if kept:
        made["optimizer_args"] = {name: _as_given(reader, name, value, ours[name]) for name, value in kept.items()}


def _literal(text: str) -> Any:
    """A value as Python reads it: (0.9,0.999), True, 1e-8; "0.9,0.99" is two numbers."""
    try:
        return ast.literal_eval(text) if len(text) < 200 else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _equal(given: Any, ours: Any) -> bool:
    if isinstance(given, list | tuple) and isinstance(ours, list | tuple):
        return list(given) == list(ours)
    return bool(given == ours) and isinstance(given, bool) == isinstance(ours, bool)


def _as_given(reader: _Reader, name: str, value: Any, ours: Any) -> Any:
    """The value in the kind that the argument has."""
    if isinstance(value, list | tuple) and isinstance(ours, list | tuple) and len(value) == len(ours):
        return [reader.values.as_number(f"optimizer_args {name}", part) for part in value]
    if isinstance(value, bool):
        return value
    return reader.values.as_number(f"optimizer_args {name}", value)


def _schedule(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    theirs = values.left.get("lr_scheduler")
    words(reader, "lr_scheduler")
    for option, key in (("lr_warmup_steps", "warmup_steps"), ("lr_decay_steps", "decay_steps")):
        found = values.share(option)
        if found:
            made[key] = int(found * made["steps"]) if found < 1 and "steps" in made else found
    if (
        made.get("warmup_steps")
        and made["lr_scheduler"] == "constant"
        and str(theirs or "constant").lower() == "constant"
    ):
        if theirs is None:  # which their trainer refuses
            reader.lose("lr_warmup_steps", made["warmup_steps"], "kept; there it needs an lr_scheduler that has one")
        else:
            why = "a constant rate has no warm-up there; for one set warmup_steps"
            reader.lose("lr_warmup_steps", made.pop("warmup_steps"), why)
    waves = values.left.get("lr_scheduler_num_cycles")
    if str(theirs).lower() in ("cosine_with_min_lr", "warmup_stable_decay") and str(waves or 1) != "1":
        reader.lose("lr_scheduler_num_cycles", values.left.pop("lr_scheduler_num_cycles"), "it falls once here")
    if made["lr_scheduler"] not in ("cosine", "stable-decay") or str(theirs).lower() == "cosine":
        values.left.pop("lr_scheduler_min_lr_ratio", None)  # which the others pass over


def _batch(reader: _Reader) -> None:
    """Photos per step; regularization images are half of them there, and come on top here."""
    values, made = reader.values, reader.made
    parts = values.whole("gradient_accumulation_steps") or 1
    size = values.whole("train_batch_size")
    many = parts * reader.source.processes
    if "batch_size" in made or size is not None:
        made["batch_size"] = (made.get("batch_size", 1) if size is None else size) * many
    elif many > 1:
        reader.lose("gradient_accumulation_steps", many, "multiply the data set file's batch_size by it: batch_size")
    if parts > 1:
        made["gradient_accumulation"] = parts
    if reader.source.processes > 1:
        reader.lose("num_processes", reader.source.processes, "batch_size is of all processes here, multiplied by it")
    if made.pop("regularization images", False):
        _halve(reader)


def _halve(reader: _Reader) -> None:
    """Each photo is seen as often as there; see `reg_data_dir` in trainers.kohya."""
    made = reader.made
    size = made.get("batch_size")
    if size is None:
        why = "half of a batch are regularization images there, on top of it here: halve batch_size"
        reader.no_equal.append(f"reg_data_dir: {why}")
    elif size % 2 == 0:
        made["batch_size"] = size // 2
        if made.get("gradient_accumulation", 1) > 1:
            made["gradient_accumulation"] = max(1, made["gradient_accumulation"] // 2)
    else:
        for key in ("steps", "warmup_steps", "decay_steps"):
            if made.get(key, 0) >= 1:
                made[key] = max(1, made[key] // 2)
        for name in ("save_every_n_steps", "save_last_n_steps"):
            if name in reader.values:
                reader.values.left[name] = max(1, (reader.values.whole(name) or 0) // 2)
        why = f"each step learns {size} of the photos and as many regularization images here, so it takes half as many"
        reader.no_equal.append(f"reg_data_dir: {why} steps to see each as often")


def _noise(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    offset, random = values.number("noise_offset"), values.flag("noise_offset_random_strength")
    adaptive = values.number("adaptive_noise_scale")
    if offset:
        made["noise_offset"] = offset
        if random:
            made["noise_offset_random"] = True
        if adaptive:
            made["noise_offset_adaptive"] = adaptive
    levels, discount = values.whole("multires_noise_iterations"), values.number("multires_noise_discount")
    if levels:
        made["pyramid_noise_levels"] = levels
        if discount is not None:
            made["pyramid_noise_discount"] = discount
    if values.flag("ip_noise_gamma_random_strength") and values.left.get("ip_noise_gamma"):
        made["input_perturbation_random"] = True
