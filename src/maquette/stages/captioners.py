"""Models that describe photos: BLIP and other image-to-text models of transformers, and the WD14 tagger (ONNX)."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import limits
from ..data.dataset import Photo
from ..data.images import open_photo
from ..errors import MaquetteError
from ..files import at_home, read_text
from ..shown import reason_of

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Captioner = Callable[[Photo], str]
MODELS = "MAQUETTE_MODELS"  # of the environment: the folder of captioners' weights
MOST_TOKENS = 60  # of a description, which then fits into the first 75 of a caption
TAG_THRESHOLD = 0.35  # probability from which a tag is taken, as the tagger's authors recommend
_GENERAL, _CHARACTER = "0", "4"  # categories in selected_tags.csv; 9 are ratings
_QUESTION = "Describe this picture in one sentence."


@dataclass(frozen=True)
class _Known:
    """A captioner whose weights are published: which files, and where."""

    address: str
    files: tuple[tuple[str, ...], ...]  # one of each group must be there
    open: Callable[[Path], Captioner]


def models_folder() -> Path:
    """$MAQUETTE_MODELS, or `models` in the current folder."""
    return at_home(os.environ.get(MODELS, "models"))


def open_captioner(name: str, model: Path | None = None) -> Captioner:
    """A function from photo to text: "blip", "wd14", a folder with an image-to-text model, or "hf:owner/name".

    Only "hf:" uses the network. Raises MaquetteError naming the files to fetch when weights are missing.
    """
    known = _KNOWN.get(name)
    if known is not None:
        folder = model or models_folder() / name
        missing = [" or ".join(group) for group in known.files if not any((folder / f).is_file() for f in group)]
        if missing:
            raise MaquetteError(
                f"The captioner {name} has no weights: put {', '.join(missing)} of {known.address} into {folder}, "
                "or name the folder that has them with --model."
            )
        return known.open(folder)
    if name.startswith("hf:"):
        return _image_to_text(name.removeprefix("hf:"), local=False)
    if (Path(name) / "config.json").is_file():
        return _image_to_text(name, local=True)
    near = difflib.get_close_matches(name, ["template", *_KNOWN], 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise MaquetteError(
        f"There is no captioner '{name}': give template, {', '.join(_KNOWN)}, the folder of an image-to-text model "
        f"(with config.json), or hf:owner/name.{hint}"
    )


def _open_blip(folder: Path) -> Captioner:
    return _image_to_text(str(folder), local=True)


def _image_to_text(source: str, local: bool) -> Captioner:
    """Any image-to-text model of transformers; deterministic (beam search, no sampling)."""
    import torch

    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ModuleNotFoundError as error:
        raise MaquetteError(
            "Captions by an image-to-text model need the package transformers: pip install 'maquette-lora[blip]'."
        ) from error
    try:
        reader: Any = AutoProcessor
        processor: Any = reader.from_pretrained(source, local_files_only=local)
        model: Any = AutoModelForImageTextToText.from_pretrained(source, local_files_only=local, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = reason_of(error)
        raise MaquetteError(f"{source} cannot be opened as an image-to-text model: {reason}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    asks = bool(getattr(processor, "chat_template", None))

    def describe(photo: Photo) -> str:
        image = open_photo(photo.path)
        if asks:
            content = [{"type": "image", "image": image}, {"type": "text", "text": _QUESTION}]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            inputs = processor(images=image, return_tensors="pt")
        inputs = inputs.to(device)
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=MOST_TOKENS, num_beams=3, do_sample=False)
        answer = ids[:, inputs["input_ids"].shape[1] :] if asks else ids
        return " ".join(processor.batch_decode(answer, skip_special_tokens=True)[0].split())

    return describe


def _open_wd14(folder: Path) -> Captioner:
    """The tagger: general and character tags above the threshold, most probable first, "_" as a space."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MaquetteError("The captioner wd14 needs its package: pip install 'maquette-lora[wd14]'.") from error
    table = StringIO(read_text(folder / "selected_tags.csv", limits.METADATA_BYTES, "list of tags"), newline="")
    try:
        rows = [(row.get("name") or "", row.get("category") or "") for row in csv.DictReader(table)]
    except csv.Error as error:
        raise MaquetteError(f"{folder / 'selected_tags.csv'} is not a valid CSV file: {error}.") from error
    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        reason = reason_of(error)
        raise MaquetteError(f"{folder / 'model.onnx'} cannot be opened as an ONNX model: {reason}") from error
    entry = session.get_inputs()[0]
    side = entry.shape[1] if isinstance(entry.shape[1], int) else 448
    if session.get_outputs()[0].shape[-1] != len(rows):
        raise MaquetteError(f"{folder}: model.onnx and selected_tags.csv do not belong together.")

    def tag(photo: Photo) -> str:
        probabilities = session.run(None, {entry.name: square_bgr(open_photo(photo.path), side)})[0][0]
        named = [
            (-float(p), name.replace("_", " ") if len(name) > 3 else name)  # ":_)" and the like stay as they are
            for (name, category), p in zip(rows, probabilities, strict=True)
            if category in (_GENERAL, _CHARACTER) and p >= TAG_THRESHOLD
        ]
        return ", ".join(name for _, name in sorted(named))

    return tag


_MOST_PADDED = 8192  # pixels


def square_bgr(image: Image, side: int) -> np.ndarray:
    """What the tagger wants: (1, side, side, 3) float32, blue green red, 0..255, padded to a square with white."""
    import numpy as np
    from PIL import Image as Pillow

    if max(image.size) > _MOST_PADDED:  # a long strip, whose square would not fit into memory
        image = image.copy()
        image.thumbnail((_MOST_PADDED, _MOST_PADDED))
    longest = max(image.size)
    square = Pillow.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    pixels = np.asarray(square.resize((side, side), Pillow.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(pixels[None, :, :, ::-1])


_KNOWN = {
    "blip": _Known(
        "https://huggingface.co/Salesforce/blip-image-captioning-base",
        (
            ("config.json",),
            ("model.safetensors",),
            ("preprocessor_config.json", "processor_config.json"),
            ("tokenizer.json", "vocab.txt"),
        ),
        _open_blip,
    ),
    "wd14": _Known(
        "https://huggingface.co/SmilingWolf/wd-v1-4-moat-tagger-v2",
        (("model.onnx",), ("selected_tags.csv",)),
        _open_wd14,
    ),
}
