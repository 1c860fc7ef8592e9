"""Facts that only torch can tell, asked of a child process once and remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import MaquetteError
from ..files import write_json
from ..parsing import read_object

POCKET: dict[str, Any] = {"family": "pocket", "native_size": 64, "latent_factor": 4, "buckets": False, "flow": False}
SECONDS = 120.0
MOST_ANSWERS = 200


class Facts:
    """Answers to questions, by question. What is told of bases is kept in a file, as long as the base's file stays."""

    def __init__(self, folder: Path, fake: bool) -> None:
        self._file, self.fake = folder / "facts.json", fake
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        self._learned: set[str] = set()
        self._turns: dict[str, threading.Lock] = {}

    def base(self, base: str) -> dict[str, Any]:
        """What a base is: family, native_size, latent_factor, buckets, batch_size, flow, cuda, device, memory_bytes.

        Raises MaquetteError for a base that cannot be read.
        """
        return self.ask({"ask": "base", "base": base}, keep=True)

    def known_base(self, base: str) -> dict[str, Any] | None:
        """The same where it is known already, without waiting; of pocket what frames need is always known."""
        with self._lock:
            found = self._found(_key({"ask": "base", "base": base}))
        return found or (POCKET if base == "pocket" else None)

    def learn(self, base: str) -> None:
        """Ask for a base in the background, once."""
        with self._lock:
            if base in self._learned:
                return
            self._learned.add(base)
        threading.Thread(target=self._learn, args=(base,), daemon=True, name="studio facts").start()

    def _learn(self, base: str) -> None:
        try:
            self.base(base)
        except MaquetteError:
            return  # whoever needs it asks again, and is told

    def ask(self, question: Mapping[str, Any], keep: bool = False) -> dict[str, Any]:
        """The answer; the first time it takes seconds. keep: also for later servers."""
        key = _key(question)
        with self._lock:
            if (found := self._found(key)) is not None:
                return found
            if len(self._turns) > MOST_ANSWERS:
                self._answers.clear()
                self._turns.clear()
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:  # others with the same question wait for one answer
            with self._lock:
                found = self._found(key)
            if found is None:
                found = asked(question, self.fake)
            with self._lock:
                self._answers[key] = found
                if keep and not self.fake:
                    write_json(self._file, self._kept() | {key: found})
        return found

    def _found(self, key: str) -> dict[str, Any] | None:
        if key not in self._answers and not self.fake and key in (kept := self._kept()):
            self._answers[key] = kept[key]
        return self._answers.get(key)

    def _kept(self) -> dict[str, Any]:
        try:
            return read_object(self._file) if self._file.exists() else {}
        except MaquetteError:
            return {}


def _key(question: Mapping[str, Any]) -> str:
    """A question about a base is another one when its file has changed."""
    base = str(question.get("base") or question.get("config", {}).get("base", ""))
    try:
        state = os.stat(base)
        stamp = f"{state.st_size} {state.st_mtime_ns}"
    except OSError:
        stamp = ""
    return json.dumps([__version__, stamp, question], sort_keys=True, default=str)


def asked(question: Mapping[str, Any], fake: bool) -> dict[str, Any]:
    """The answer of a process of its own (see `ask`). Raises MaquetteError with why there is none."""
    if fake:
        return _fake(question)
    command = [sys.executable, "-m", "maquette.studio.ask"]
    try:
        done = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, timeout=SECONDS, check=True
        )
        reply = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        what = "What this base needs" if "base" in question else "This"
        raise MaquetteError(f"{what} could not be found out; its file may be damaged.") from error
    if "error" in reply:
        raise MaquetteError(reply["error"])
    answer: dict[str, Any] = reply["answer"]
    return answer


def _fake(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answers for tests, in which nothing imports torch."""
    if question["ask"] == "base":
        if question["base"] != "pocket" and not Path(question["base"]).exists():
            raise MaquetteError(f"There is no base {question['base']}.")
        machine = {"cuda": False, "device": "CPU", "memory_bytes": 8_000_000_000, "batch_size": 8}
        return POCKET | machine
    if question["ask"] == "caption":
        return {"caption": f"a picture, as {question['captioner']} sees it"}
    raise MaquetteError("Kohya's trainer has no equal of the pocket base.")
