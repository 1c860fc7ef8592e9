"""What is written of a job: the task that a worker is given, the outcome that it tells, the committed result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["", "user", "nan", "oom", "machine", "poison", "budget"]
Status = Literal["done", "rejected", "failed"]


@dataclass(frozen=True)
class Task:
    """One attempt at a job, as it goes to a worker. All of it is JSON."""

    number: int  # of the attempt, over all jobs of this driver
    tenant: str
    job: str  # the id, which is an alias of the key
    row: str
    mark: str
    body: str  # of the Job
    store: str  # address
    trial: int = 1  # which attempt at this job, from 1
    low_memory: bool = False
    alone: bool = False  # not together with others, since an attempt has failed
    submitted: float = 0.0  # seconds since 1970, when the job was ready to run
    wasted_seconds: float = 0.0  # of earlier attempts
    scratch: str | None = None
    prices: dict[str, float] = field(default_factory=dict)
    money_limited: bool = False  # the tenant's quota is in money, which needs a price of the device
    runs: str | None = None  # folder where the job's run folder stays, under its id, instead of the scratch folder

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Outcome:
    """How an attempt ended.

    state: "committed" (its result is the job's), "known" (another's is), "drained" (stopped, to go on elsewhere),
    "cancelled", "busy" (another driver's worker is at it), "unpriced" (the tenant's money cannot be counted on this
    device), "failed" (to be tried again, for `kind`), "died" (its worker is gone).
    """

    number: int
    state: Literal["committed", "known", "drained", "cancelled", "busy", "unpriced", "failed", "died"]
    node: str = ""
    worker: str = ""
    kind: Kind = ""
    message: str = ""
    seconds: float = 0.0
    result: dict[str, Any] | None = None
    uncommitted: bool = False  # the store cannot create exclusively: the driver commits `result`
    key: str = ""
    recycle: bool = False  # the worker is not to be used again
    slots: int = 1  # how many jobs were trained together

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Outcome:
        return cls(**values)


@dataclass
class Result:
    """result.json: which attempt made what, when and at which price. No names of people and no paths."""

    key: str
    tenant: str
    job: str
    row: str
    mark: str
    status: Status
    attempt: str = ""
    kind: Kind = ""
    message: str = ""
    files: dict[str, str] = field(default_factory=dict)  # name below the attempt -> sha256
    size: int = 0  # bytes of the files
    trial: int = 1
    steps: int = 0
    step: int | None = None  # of the chosen checkpoint
    weight: float | None = None
    accepted: bool | None = None  # by the evaluation; None where there was none
    score: float | None = None
    device: str = ""
    node: str = ""
    submitted: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)  # by part: prepare, train, evaluate, generate, upload
    wasted_seconds: float = 0.0
    cost: float | None = None
    low_memory: bool = False
    slots: int = 1  # how many jobs were trained together on one network, this one among them
    resumed_from: str = ""
    base: str = ""
    method: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")) + "\n").encode()

    @property
    def busy_seconds(self) -> float:
        return sum(self.seconds.values())


def read_result(raw: bytes) -> dict[str, Any] | None:
    """A committed result; None for what is none, such as one that a file system without links left half written."""
    try:
        values = json.loads(raw)
    except ValueError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("key"), str) and "status" in values else None


def price_of(device: str, prices: dict[str, float]) -> float | None:
    """Of an hour on a device: of the longest name in the table that is part of its own; None where there is none."""
    found = [name for name in prices if name.lower() in device.lower()]
    return prices[max(found, key=len)] if found else None
