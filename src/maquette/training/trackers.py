"""The numbers and pictures of a run in TensorBoard and Weights & Biases, where the user asks for them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import files
from ..config import TrainConfig
from ..data.images import open_photo
from ..errors import MaquetteError
from ..events import Event, Listener
from ..files import write_text
from ..run_folder import RunFolder

NUMBERS = ("loss", "gradient_norm", "learning_rate", "images_per_second")


@contextmanager
def following(config: TrainConfig, folder: RunFolder, on_event: Listener) -> Iterator[Listener]:
    """A listener that tells `on_event`, the folder's events.jsonl and every tracker of the configuration.

    Raises MaquetteError naming the package when a tracker is not installed.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(folder.recording())]
        listeners += [stack.enter_context(TRACKERS[name](config, folder)) for name in config.trackers]

        def listen(event: Event) -> None:
            on_event(event)
            for tell in listeners:
                tell(event)

        yield listen


@contextmanager
def _tensorboard(config: TrainConfig, folder: RunFolder) -> Iterator[Listener]:
    """Event files in runs/NAME/tensorboard; a resumed run adds another, which TensorBoard joins by step."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MaquetteError(
            "The tracker tensorboard needs its package: pip install 'maquette-lora[tensorboard]'."
        ) from error
    start = max((line.get("step", 0) for line in folder.read_metrics()), default=0)
    writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=start + 1)

    def tell(event: Event) -> None:
        if event.kind == "metric":
            for name in NUMBERS:
                writer.add_scalar(f"train/{name}", event.data[name], event.data["step"])
        elif event.kind == "sample":
            for i, prompt in enumerate(event.data["prompts"]):
                writer.add_image(
                    prompt, _pixels(f"{event.data['folder']}/{i}.png"), event.data["step"], dataformats="HWC"
                )

    try:
        yield tell
    finally:
        writer.close()


@contextmanager
def _wandb(config: TrainConfig, folder: RunFolder) -> Iterator[Listener]:
    """One W&B run by the run's name, which a resumed run goes on with.

    Where it goes follows from wandb's own settings, such as WANDB_MODE=offline.
    """
    try:
        import wandb
    except ImportError as error:
        raise MaquetteError("The tracker wandb needs its package: pip install 'maquette-lora[wandb]'.") from error
    settings = config.model_dump(mode="json", exclude={"photos", "out", "reg", "base", "vae", "from_lora"})
    identity = _identity(folder.path / "wandb.id")
    tracked = wandb.init(
        project="maquette", name=folder.name, dir=str(folder.path), config=settings, id=identity,
        resume="allow",
    )  # fmt: skip

    def tell(event: Event) -> None:
        if event.kind == "metric":
            tracked.log({f"train/{name}": event.data[name] for name in NUMBERS}, step=event.data["step"])
        elif event.kind == "sample":
            pictures = [
                wandb.Image(f"{event.data['folder']}/{i}.png", caption=prompt)
                for i, prompt in enumerate(event.data["prompts"])
            ]
            tracked.log({"samples": pictures}, step=event.data["step"])

    try:
        yield tell
    finally:
        tracked.finish()


def _identity(file: Path) -> str:
    """The name under which W&B knows the run: a new one unless the file holds one."""
    written = files.read_text(file, 100, "W&B run id").strip() if file.exists() else ""
    if re.fullmatch(r"[0-9a-z]{1,32}", written):
        return written
    made = uuid.uuid4().hex[:16]
    write_text(file, made)
    return made


def _pixels(path: str) -> Any:
    import numpy as np

    return np.asarray(open_photo(path))


TRACKERS: dict[str, Callable[[TrainConfig, RunFolder], Any]] = {"tensorboard": _tensorboard, "wandb": _wandb}
