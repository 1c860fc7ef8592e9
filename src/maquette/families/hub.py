"""Models of the Hugging Face hub, fetched only when a person names one as `hf:owner/name`."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import MaquetteError
from ..shown import reason_of

_PREFIX = "hf:"
_FILES = ["model_index.json", "*/config.json", "*/scheduler_config.json", "tokenizer*/*", "*/*.safetensors*"]
_NOT_NEEDED = [
    "safety_checker/*",
    "feature_extractor/*",
    "*.fp16.*",
    "*.non_ema.*",
    "*/*.ema.*",
    "*flax*",
    "*openvino*",
]


def is_hub_id(path: str | Path) -> bool:
    return str(path).startswith(_PREFIX)


def download(name: str) -> Path:
    """The local folder of `hf:owner/name`, fetched into the hub's own cache unless it is there. Only safetensors
    weights.
    """
    repository = name.removeprefix(_PREFIX)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise MaquetteError(f"{name!r} is not a hub model; write hf:owner/name.")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_FILES, ignore_patterns=_NOT_NEEDED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if constants.HF_HUB_OFFLINE and isinstance(error, LocalEntryNotFoundError):
            raise MaquetteError(
                f"{name} is not on this computer, and HF_HUB_OFFLINE forbids to fetch it: set HF_HUB_OFFLINE=0, or "
                "name a local file or folder."
            ) from error
        reason = reason_of(error).rstrip(".")
        raise MaquetteError(f"{name} could not be fetched from the hub ({reason}); check name and network.") from error
