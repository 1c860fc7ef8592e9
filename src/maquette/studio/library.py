"""Which bases, LoRAs, ControlNets and VAEs there are, by the names that A1111's interface calls them. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ..adapters.dialects import is_adapter
from ..adapters.peft_folder import parts_of
from ..data.images import folders_once
from ..errors import MaquetteError
from ..formats.headers import header_of

Kind = Literal["model", "vae", "lora", "controlnet", "other"]
POCKET = "pocket"
CONTROLS = {"pocket-canny": "pocket-canny"}  # that the package ships
_PICKLES = (".ckpt", ".pt", ".bin")
_UPSCALERS = (".pth", ".pt", ".safetensors")
_MOST = 5000  # files that are listed of a folder


@dataclass(frozen=True)
class Weights:
    """A file or folder of weights by its name. metadata: what a safetensors file says of itself."""

    name: str
    path: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """Of a base: pixels of the pictures that it was trained on, as its name and tensors say."""
        if self.path == POCKET:
            return 64
        path = Path(self.path)
        return 1024 if (path / "text_encoder_2").is_dir() or (path.is_file() and _glance(path)[2]) else 512

    @property
    def file_name(self) -> str:
        return Path(self.path).name

    @property
    def alias(self) -> str:
        """The name that a trainer wrote into the file; the file's own where there is none."""
        return self.metadata.get("ss_output_name") or self.name


class Library:
    """What lies in the folders now: each call looks again, and reads only headers of files that are new."""

    def __init__(
        self, bases: Sequence[Path], loras: Sequence[Path], first: str = POCKET, upscalers: Sequence[Path] = ()
    ) -> None:
        """first: the base that stands before the others, "pocket", a file or a folder."""
        self.bases, self.lora_folders, self.first = [Path(p) for p in bases], [Path(p) for p in loras], first
        self.upscaler_folders = [Path(p) for p in upscalers]

    def models(self) -> list[Weights]:
        """Bases, pocket among them."""
        found = {POCKET: Weights(POCKET, POCKET)}
        for path in self._files("model"):
            found.setdefault(str(path), Weights(path.stem if path.is_file() else path.name, str(path)))
        if self.first not in found:
            found[self.first] = Weights(Path(self.first).stem, self.first)
        return sorted(found.values(), key=lambda model: (model.path != self.first, model.path != POCKET, model.name))

    def model(self, name: str) -> Weights:
        """A base by its title ("name.safetensors [hash]"), name, file name. Raises MaquetteError with the list."""
        asked = name.partition(" [")[0].strip().lower()
        models = self.models()
        for model in models:
            if asked in (model.name.lower(), model.file_name.lower(), model.path.lower()):
                return model
        raise MaquetteError(f"There is no model {name!r}; there are {', '.join(model.name for model in models)}.")

    def controlnets(self) -> dict[str, str]:
        """Name -> what a ControlNet is opened by."""
        return CONTROLS | {path.stem: str(path) for path in self._files("controlnet")}

    def vaes(self) -> dict[str, str]:
        return {path.name: str(path) for path in self._files("vae")}

    def upscalers(self) -> dict[str, str]:
        """Name -> file of the networks that enlarge pictures, such as ESRGAN's."""
        there = [path for folder in self.upscaler_folders if folder.is_dir() for path in sorted(folder.iterdir())]
        return {path.stem: str(path) for path in there if path.suffix.lower() in _UPSCALERS and path.is_file()}

    def loras(self) -> list[Weights]:
        """LoRAs by the names of prompts. Of files of one name the newest has it; the others are called by their folder
        as well ("run-3/anna").
        """
        paths = [path for folder in self.lora_folders for path in _walk(folder) if _is_lora(path)]
        paths = sorted(dict.fromkeys(paths), key=_newest_first)
        found: dict[str, Weights] = {}
        for path in paths:
            parts = path.with_suffix("").parts if path.is_file() else path.parts
            names = ("/".join(parts[-n:]) for n in range(1, len(parts) + 1))
            name = next((name for name in names if name not in found), None)
            if name is not None:
                found[name] = Weights(name, str(path), _metadata(path))
        return sorted(found.values(), key=lambda lora: lora.name.lower())

    def lora_paths(self) -> dict[str, str]:
        """Name -> path, also by the names written inside."""
        loras = self.loras()
        return {lora.alias: lora.path for lora in reversed(loras)} | {lora.name: lora.path for lora in loras}

    def _files(self, kind: Kind) -> Iterator[Path]:
        for folder in self.bases:
            yield from (path for path in _walk(folder) if kind_of(path) == kind)


def kind_of(path: Path) -> Kind:
    """What a file or folder of weights is, by the names of its tensors."""
    if path.is_dir():
        return "model" if (path / "model_index.json").is_file() else "lora"
    return "model" if path.suffix.lower() == ".ckpt" else _glance(path)[0]


def _kind(names: Sequence[str]) -> Kind:
    if any(name.startswith("model.diffusion_model.") for name in names):
        return "model"
    if any(name.startswith("control_model.") or "controlnet_cond_embedding" in name for name in names):
        return "controlnet"
    if is_adapter(names):
        return "lora"
    return (
        "vae" if any(name.endswith(("encoder.conv_in.weight", "decoder.conv_in.weight")) for name in names) else "other"
    )


def _is_lora(path: Path) -> bool:
    return path.suffix.lower() in _PICKLES or kind_of(path) == "lora"


def _newest_first(path: Path) -> tuple[float, str]:
    try:
        return -path.stat().st_mtime, str(path)
    except OSError:
        return 0.0, str(path)


def _walk(place: Path) -> Iterator[Path]:
    """Files and folders of weights below a folder, linked ones too, each folder once; hidden ones and a run's state are
    left out. A file stands for itself, and so does a folder of PEFT.
    """
    if place.is_file() or parts_of(place):
        yield place
        return
    count = 0
    for root, folders, files in folders_once(place):
        inside = []
        for name in sorted(folders):
            path = root / name
            if (path / "model_index.json").is_file() or parts_of(path):
                yield path
            elif not name.startswith(".") and name != "state":
                inside.append(name)
        folders[:] = inside
        for name in sorted(files):
            if Path(name).suffix.lower() in (".safetensors", *_PICKLES) and not name.startswith("."):
                count += 1
                if count > _MOST:
                    return
                yield root / name


def _metadata(path: Path) -> dict[str, str]:
    return dict(_glance(path)[1])


def _glance(path: Path) -> tuple[Kind, dict[str, str], bool]:
    """Kind, metadata, and whether it is SDXL, of a safetensors file. Its header is not checked: this is to list it."""
    try:
        state = path.stat()
    except OSError:
        return "other", {}, False
    return _read(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2048)
def _read(path: str, size: int, changed: int) -> tuple[Kind, dict[str, str], bool]:
    if not path.lower().endswith(".safetensors"):
        return "other", {}, False
    try:
        header = header_of(path)
    except OSError:
        return "other", {}, False
    metadata = header.pop("__metadata__", {})
    texts = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return _kind(list(header)), texts, any(name.startswith("conditioner.") for name in header)
