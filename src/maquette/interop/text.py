"""What the commands for all programs share: options in order, files beside them, and a text that is safe to run."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config import TrainConfig

# Written by all, or without influence on the weights.
SILENT = {"photos", "subject", "out", "method", "steps", "device", "timestamps", "keep_steps", "sample_seed",
          "sample_steps", "sample_cfg_scale", "embedding_format", "text_encoder", "batch_size", "gradient_accumulation",
          "repeats", "resolution", "trackers", "save_dtype", "deterministic", "cuda_graphs", "compile", "kind",
          "probe_prediction", "choose", "preferred_weight", "keep_state"}  # fmt: skip
POCKETS = ("learning_rate", "text_encoder_learning_rate", "embedding_learning_rate", "resolution", "batch_size")


@dataclass
class CommandResult:
    """A shell text to run where the other program is installed. It stops before training while `no_equal` is not
    empty, so that nobody trains something else unread.
    """

    program: str
    command: str
    no_equal: list[str] = field(default_factory=list)  # "key = value: why"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _document(name: str, text: str) -> str:
    """Lines of the shell that write a file. The word that ends it is none of its lines."""
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"cat > {shlex.quote(name)} <<'{end}'\n{text}\n{end}\n"


class Writer(ABC):
    """Collects the options of one program's command."""

    program = ""

    @abstractmethod
    def result(self) -> CommandResult:
        """The whole command."""

    def __init__(self, config: TrainConfig, facts: dict[str, str]) -> None:
        self.config, self.facts = config, facts
        self.xl = "sdxl" in facts.get("ss_base_model_version", "") or "xl" in facts.get("modelspec.architecture", "")
        self.options: list[tuple[str, Any]] = []
        self.files: list[tuple[str, str]] = []
        self.before: list[str] = []  # lines of the shell
        self.no_equal: list[str] = []
        self.covered = set(SILENT)
        self.out = config.out or Path("runs/lora")

    def add(self, option: str, value: Any = True) -> None:
        self.options.append((option, value))

    def lose(self, key: str, why: str) -> None:
        self.covered.add(key)
        self.no_equal.append(f"{key} = {getattr(self.config, key)}: {why}")

    def changed(self) -> list[str]:
        """Keys that are not at maquette's own default."""
        fields = type(self.config).model_fields
        return [
            key for key, field in fields.items()
            if getattr(self.config, key) != field.get_default(call_default_factory=True)
        ]  # fmt: skip

    def finish(self, script: str) -> CommandResult:
        for key in self.changed():
            if key not in self.covered:
                self.lose(key, "has no equal there")
        if self.config.base == "pocket":
            idle = {"embedding_learning_rate"} if self.config.method != "textual-inversion" else set()
            idle |= set() if self.config.text_encoder else {"text_encoder_learning_rate"}
            found = {key: getattr(self.config, key) for key in POCKETS if key not in idle}
            numbers = [f"{key} = {value}" for key, value in found.items() if value is not None]
            self.no_equal[:0] = [
                "base = pocket: exists only here; name a Stable Diffusion model in its place",
                f"{', '.join(numbers)}: made for pocket, which predicts v; choose those of the other base",
            ]
        lines = [f"accelerate launch {script}"]
        for option, value in self.options:
            words = [str(word) for word in (value if isinstance(value, list) else [] if value is True else [value])]
            lines.append(" ".join([f"  --{option}", *map(shlex.quote, words)]))
        files = "".join(_document(name, text.rstrip()) for name, text in self.files)
        before = "".join(f"{line}\n" for line in self.before)
        text = self._guard() + before + files + " \\\n".join(lines) + "\n"
        return CommandResult(self.program, text, self.no_equal)

    def _guard(self) -> str:
        """Stops a shell until what is lost was read."""
        if not self.no_equal:
            return ""
        lines = "".join(f"#   {' '.join(line.split())}\n" for line in self.no_equal)
        return (
            f"# This would not train what maquette trained. No equal in {self.program}:\n{lines}"
            "# Change the command as you need it and take out the next line.\n"
            "echo 'Read the first lines of this script: it would train something else.' >&2; exit 1\n"
        )
