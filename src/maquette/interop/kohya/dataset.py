"""The photos of a Kohya configuration: folders, a data set file or a metadata file, and the shapes they are cut to."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ...config.photos import STYLE_TEMPLATE, TEMPLATE
from ...data.buckets import BucketRules, make_buckets, rules_for
from ...data.captions import caption_for_subject
from ...data.images import is_photo
from ...errors import MaquetteError
from ...parsing import parse_toml
from ...trainers.kohya import BUCKET_LIMITS, OPTIONS, neutral
from .values import Values

if TYPE_CHECKING:
    from .read import _Reader

KOHYAS_ENDING = ".caption"  # of caption files, where none is given
# Options of the command line that a data set file may say too, and then decides; and whether ours fill its gaps.
_FALLBACKS = {
    "resolution": True, "train_batch_size": True, "flip_aug": True, "random_crop": True,
    **dict.fromkeys(
        ("enable_bucket", "bucket_no_upscale", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
         "shuffle_caption", "keep_tokens", "caption_prefix", "caption_suffix", "caption_dropout_rate",
         "caption_tag_dropout_rate", "enable_wildcard", "caption_separator", "keep_tokens_separator",
         "secondary_separator", "caption_extension", "alpha_mask", "color_aug", "caption_dropout_every_n_epochs",
         "token_warmup_step", "token_warmup_min", "face_crop_aug_range", "resize_interpolation", "validation_split"),
        False),
}  # fmt: skip
_THEIR_NAMES = {"train_batch_size": "batch_size"}  # in the file


def read(reader: _Reader) -> None:
    """Take the options that say which photos, in which shapes. Raises MaquetteError where a script names none."""
    values, made = reader.values, reader.made
    old = values.text("caption_extention")
    if old is not None:
        values.left["caption_extension"] = old
    file = values.text("dataset_config")
    if file is not None:
        for name in ("train_data_dir", "reg_data_dir", "in_json", "dataset_repeats"):
            if values.left.pop(name, None):
                reader.needless.append(f"{name} (the data set file wins)")
        if file in reader.source.files:
            _written(reader, file)
        else:
            return _named(reader, file)
    else:
        _folder(reader)
    _shapes(reader)
    if made.get("reg"):
        made["regularization images"] = True


def _folder(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    photos, metadata = values.text("train_data_dir"), values.text("in_json")
    if photos is None and not reader.source.template:
        raise reader.refuse("it names no photos: it has neither train_data_dir nor dataset_config.")
    if photos is not None:
        made["photos"] = photos
    repeats = values.whole("dataset_repeats")
    if metadata is not None:
        if repeats and repeats > 1:
            made["repeats"] = repeats
        _metadata(reader, metadata, photos)
        values.left.pop("caption_extension", None)
    else:
        _ending(reader, photos)
    reg = values.text("reg_data_dir")
    if reg is not None:
        made["reg"] = reg


def _metadata(reader: _Reader, metadata: str, photos: str | None) -> None:
    """A metadata file is named in the photos' place where it lies among them."""
    parent = str(PureWindowsPath(metadata).parent).replace("\\", "/")
    if photos is None or parent == str(PureWindowsPath(photos)).replace("\\", "/"):
        reader.made["photos"] = metadata
    else:
        reader.lose("in_json", metadata, f"copy it into {photos}, where it is read, or name it there as photos")


def _ending(reader: _Reader, photos: str | None) -> None:
    """Which caption files are read: those of one ending there. Not said here where all of them end so."""
    given = reader.values.text("caption_extension")
    ending = given or KOHYAS_ENDING
    if not ending.startswith("."):
        ending = f".{ending}"
        reader.lose("caption_extension", given, f"read as {ending}; there, without its point, no caption is found")
    folder = Path(photos or "")
    there = bool(photos) and _is_folder(folder)
    if ending != ".txt" or (there and _holds(folder, ".caption")):
        reader.made["caption_extension"] = ending
    if there and (photo := _nameless(folder, ending)):
        words = photo.parent.name.partition("_")[2]
        why = f"without a caption it is called {words!r} there, {caption_for_subject(words)!r} here"
        reader.no_equal.append(f"{photo.name}: {why}")
    if given is None and there and _holds(folder, ".txt"):
        why = "theirs where none is given: the .txt files are passed over; take the key out to learn them"
        reader.lose("caption_extension", KOHYAS_ENDING, why)


def _nameless(folder: Path, ending: str) -> Path | None:
    """A photo in one of a folder's `40_ohwx man` folders that has no caption file of that ending."""
    for inside in sorted(folder.glob("[0-9]*_*")):
        if inside.is_dir():
            for photo in sorted(inside.iterdir()):
                if is_photo(photo) and not photo.with_suffix(ending).is_file():
                    return photo
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _holds(folder: Path, ending: str) -> bool:
    """Whether files of that ending lie in the folder or in those inside it."""
    return any(next(folder.glob(pattern), None) for pattern in (f"*{ending}", f"*/*{ending}"))


def _written(reader: _Reader, name: str) -> None:
    """A data set file that the script writes: one folder of photos, and one of regularization images."""
    content = parse_toml(reader.source.files[name], name)
    sets = [one for one in content.pop("datasets", []) if isinstance(one, dict)]
    subsets = [subset for one in sets for subset in one.pop("subsets", [])]
    photos = [subset for subset in subsets if not subset.get("is_reg")]
    if len(sets) != 1 or len(photos) != 1 or len(subsets) > 2:
        raise reader.refuse("its data set has several folders; keep it in a file and name that.")
    values, made = reader.values, reader.made
    merged = {**content.get("general", {}), **sets[0], **photos[0]}
    made["photos"] = str(merged.pop("image_dir", ""))
    if "num_repeats" in merged:
        made["repeats"] = merged.pop("num_repeats")
    if words := str(merged.pop("class_tokens", "") or ""):
        style = words.removeprefix(STYLE_TEMPLATE.partition("{")[0])
        if style != words:
            made["kind"] = "style"
        made["subject"] = style.removeprefix(TEMPLATE.partition("{")[0])
        if made["subject"] == words and (caption := caption_for_subject(words)) != words:
            reader.lose("class_tokens", words, f"photos without a caption are called {caption!r} here")
    if "batch_size" in merged:
        merged["train_batch_size"] = merged.pop("batch_size")
    values.left |= merged
    _ending(reader, made["photos"])
    for subset in subsets:
        if subset.get("is_reg"):
            made["reg"] = str(subset.get("image_dir", ""))


def _named(reader: _Reader, name: str) -> None:
    """A data set file by name. What it says wins over the command line; what nobody wrote is left to it."""
    values, made = reader.values, reader.made
    made["photos"] = name
    for key in ("resolution", "buckets", "batch_size"):
        made.pop(key)
    given = [option for option in _FALLBACKS if option in values and _asks(option, values.left[option])]
    text = reader.source.text_of(name)
    if text is None:
        for option in _FALLBACKS:
            values.left.pop(option, None)
        if given:
            reader.no_equal.append(
                f"{', '.join(given)}: {name}, which is not there to be read, decides; where it is silent, write them "
                "under its [general]"
            )
        return
    said = _said(parse_toml(text, name))
    if "resolution" not in said and "resolution" in values:
        _resolution(reader)
    made["batch_size"] = Values({"train_batch_size": said.get("batch_size")}, name).whole("train_batch_size") or 1
    if "batch_size" in said:
        values.left.pop("train_batch_size", None)
    if said.get("is_reg"):
        made["regularization images"] = True
    for option, ours_fill in _FALLBACKS.items():
        known = _THEIR_NAMES.get(option, option) in said
        if known or not ours_fill:
            value = values.left.pop(option, None)
            if known and value is not None:
                reader.needless.append(f"{option} (the data set file says it)")
            elif option in given:
                reader.lose(option, value, f"{name} does not say it; write it under its [general]")


def _asks(option: str, value: Any) -> bool:
    """Whether an option says other than its default."""
    found = OPTIONS[option]
    usual = {"min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64}.get(option, found.default)
    return not neutral(value) and str(value) != str(usual) and str(value) not in map(str, found.nothing)


def _said(content: dict[str, Any]) -> dict[str, Any]:
    """Every key that the file has anywhere, with the first value; of is_reg whether any is true."""
    said: dict[str, Any] = {}
    for table in _tables(content):
        for key, value in table.items():
            if key == "is_reg":
                said[key] = bool(value) or said.get(key, False)
            said.setdefault(key, value)
    return said


def _tables(content: dict[str, Any]) -> list[dict[str, Any]]:
    sets = [one for one in content.get("datasets", []) if isinstance(one, dict)]
    subsets = [subset for one in sets for subset in one.get("subsets", []) if isinstance(subset, dict)]
    return [table for table in (content.get("general", {}), *sets, *subsets) if isinstance(table, dict)]


def _shapes(reader: _Reader) -> None:
    values, made = reader.values, reader.made
    made["buckets"] = bool(values.flag("enable_bucket"))
    if "resolution" in values:
        _resolution(reader)
    limits = {ours: values.whole(theirs) for ours, (theirs, _) in BUCKET_LIMITS.items()}
    if not made["buckets"]:
        values.left.pop("bucket_no_upscale", None)  # nor does it mean anything there
        return
    _limits(reader, limits)


def _limits(reader: _Reader, limits: dict[str, int | None]) -> None:
    """List the bucket limits that make other buckets than those here."""
    values, rules = reader.values, rules_for(int(reader.made["resolution"]))
    free = str(values.left.get("bucket_no_upscale", "")).lower() in ("true", "1")
    step = limits["step"] or BUCKET_LIMITS["step"][1]
    found: dict[str, int] = {}
    for ours, (theirs, usual) in BUCKET_LIMITS.items():
        size = limits[ours] or usual
        if not 1 <= size <= 65536:
            raise values.fault(theirs, size, "a size in pixels")
        found[ours] = size if ours == "step" else -(-size // step) * step if ours == "max_size" else size // step * step
    if not free and _same_buckets(rules, found):
        return
    for ours, (theirs, _) in BUCKET_LIMITS.items():
        if found[ours] != getattr(rules, ours) and not (free and ours != "step"):
            reader.lose(theirs, found[ours], f"{getattr(rules, ours)} here; a data set file can say it")


def _same_buckets(rules: BucketRules, found: dict[str, int]) -> bool:
    step = found["step"]
    try:
        theirs = make_buckets(rules.resolution, max(step, found["min_size"]), found["max_size"], step)
        return theirs == rules.buckets()
    except MaquetteError:  # limits that leave none
        return False


def _resolution(reader: _Reader) -> None:
    """One number for both sides; of two, the square of the same area."""
    value = reader.values.left.pop("resolution")
    sides = [int(side) for side in re.findall(r"\d{1,6}", str(value))]
    if not re.fullmatch(r"[\[(]?\s*\d{1,6}(\.0)?\s*([,x]\s*\d{1,6}(\.0)?\s*)?[\])]?", str(value)) or not all(sides):
        raise reader.values.fault("resolution", value, "a size such as 512 or 512,768")
    sides = [int(float(side)) for side in re.findall(r"\d+(?:\.0)?", str(value))]
    area = sides[0] * sides[-1]
    found = sides[0] if sides[0] == sides[-1] and sides[0] % 8 == 0 else round(area**0.5 / 8) * 8
    reader.made["resolution"] = max(16, found)
    if (found, found) != (sides[0], sides[-1]):
        reader.lose("resolution", value, f"a square of the same area instead, {max(16, found)}")
