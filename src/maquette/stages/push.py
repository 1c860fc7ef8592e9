"""`maquette push`: a run's model card with pictures, and its upload where that is asked for."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.runs import PushConfig
from ..config.train import TrainConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..files import write_text
from ..methods import METHODS
from ..report.model_card import PICTURES, Card, text
from ..report.run_page import preferred_weight
from ..report.samples import drawn
from ..run_folder import HUB, RunFolder
from ..shown import reason_of

MOST = 6  # pictures on the card


@dataclass
class PushResult:
    """files: what is, or would be, in the repository. url: None where nothing was uploaded."""

    run: str
    repository: str
    card: str
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    url: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: PushConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> PushResult:
    """Write the card and copies of pictures into the run folder's `hub`; upload them and the file if that is asked.

    Photos, captions and other checkpoints are never sent. Raises MaquetteError for a run that has not finished, and
    where the hub refuses.
    """
    on_event = until(cancel, on_event)
    repository = config.to.removeprefix("hf:")
    if not config.to.startswith("hf:") or not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise MaquetteError(f"{config.to!r} is no place on the hub; write hf:owner/name.")
    folder = RunFolder.open(config.run)
    file = folder.chosen
    if file is None:
        raise MaquetteError(f"{folder.path} has not finished: go on with maquette train --resume {folder.path}.")
    hub = folder.path / HUB
    pictures = _pictures(folder, hub)
    training = TrainConfig.read(folder.config)
    product = METHODS[training.method].product
    reasons, photos = folder.read_evaluation().get("reasons", []), folder.read_photos()
    card = Card(
        repository.split("/")[1], training, config.license, file.name,
        preferred_weight(file) if product == "adapter" else None, pictures,
        [str(reason) for reason in reasons], sum(photo.get("role") == "instance" for photo in photos),
    )  # fmt: skip
    write_text(hub / "README.md", text(card))
    sent = {"README.md": hub / "README.md", file.name: file}
    sent |= {f"{PICTURES}/{i}.png": hub / PICTURES / f"{i}.png" for i in range(len(pictures))}
    size = sum(path.stat().st_size for path in sent.values())
    result = PushResult(str(folder.path), repository, str(hub / "README.md"), list(sent), size)
    if config.upload:
        on_event(Event("progress", {"what": "uploading", "done": 0, "of": 1}))
        result.url = upload(repository, sent, config.private)
        on_event(Event("progress", {"what": "uploading", "done": 1, "of": 1}))
    on_event(Event("done", result.to_json()))
    return result


def _pictures(folder: RunFolder, hub: Path) -> list[str]:
    """Copy the sample pictures of the chosen step, else of the last, into hub/images. Returns their prompts."""
    places = folder.sample_folders()
    chosen = folder.read_evaluation().get("step")
    order = ([chosen] if chosen in places else []) + sorted(places, reverse=True)
    for step in order:
        if step and (prompts := drawn(places[step])):
            (hub / PICTURES).mkdir(parents=True, exist_ok=True)
            for i in range(len(prompts[:MOST])):
                shutil.copyfile(places[step] / f"{i}.png", hub / PICTURES / f"{i}.png")
            return prompts[:MOST]
    return []


def upload(repository: str, files: dict[str, Path], private: bool) -> str:
    """Make the repository where there is none, and commit the files in one go. Returns its address.

    Who may write is decided by huggingface_hub's own login. Raises MaquetteError where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload by maquette")
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = reason_of(error)
        raise MaquetteError(
            f"hf:{repository} was not written ({reason}); log in with `hf auth login`, and see that the name is yours."
        ) from error
    except _unreached() as error:
        raise MaquetteError(
            f"hf:{repository} was not written, the hub cannot be reached ({reason_of(error)}); try again later."
        ) from error
    return str(made)


def _unreached() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises without a connection: before version 1 an OSError, then its client's own."""
    clients = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(client.HTTPError for client in clients)
