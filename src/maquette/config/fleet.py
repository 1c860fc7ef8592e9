"""The configurations of `maquette fleet` and of its file fleet.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Count, Positive, StageConfig


class FleetConfig(StageConfig):
    """Which jobs, where their results lie, and who works."""

    jobs: Path | None = None
    """File of jobs: .jsonl, .csv, or .toml with a grid of values; otherwise what was submitted to the root before."""
    root: str = "fleet"
    """Where results go: a folder, or an address that fsspec knows (s3://bucket/fleet)."""
    settings: Path | None = None
    """fleet.toml with prices, quotas and defaults; it is kept in the root, and later calls need not name it."""
    address: str = "local"
    """Who works: local (processes of this machine), auto (the Ray cluster of this machine, or a new one), or
    ray://host:10001."""
    workers: Count = 1
    """Trainings at a time: processes of this machine, or actors."""
    devices: list[str] = Field(default=[])
    """Graphics cards by number, one worker each; otherwise workers share what there is."""
    slots: Count = 1
    """How many alike jobs of one tenant a worker trains at once, on one network (docs/slots.md)."""
    attempts: Count = 5
    """How often a job is tried where machines fail."""
    delete_photos: bool = False
    """Delete a job's photos and captions once its result, and that of every other job with these photos, is there."""
    scratch: Path | None = None
    """Folder for what workers need while they train; otherwise the system's folder for temporary files."""
    ids: list[str] = Field(default=[])
    """Of retry and cancel: only the jobs with these ids."""
    failed: Literal["all", "user", "nan", "oom", "machine", "poison", "budget"] = "all"
    """Of retry: only jobs that failed for this reason."""
    submit: bool = False
    """Of plan: put the jobs into the root, so that a run elsewhere needs no file of jobs."""
    all: bool = False
    """Of cancel: all jobs that have no result yet."""
    out: Path | None = None
    """Of report: the page; otherwise fleet-report.html."""
    yes: bool = False
    """Of gc: remove what it lists."""


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Quota(StageConfig):
    """What one tenant may use at most, in one `fleet run`."""

    in_flight: Count | None = None
    """Jobs at a time."""
    seconds: Positive | None = None
    """Seconds of workers."""
    money: Positive | None = None
    """Money, by the prices."""
    share: Positive = 1.0
    """Of the workers, against other tenants' shares, while several have jobs of one priority."""


class FleetSettings(StageConfig):
    """fleet.toml: what an hour costs, what tenants may use, what jobs have in common."""

    currency: str = "$"
    """Of the prices."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """Price of an hour of a worker by the name of its device, or a part of it: {cpu = 0.05, H200 = 3.5}."""
    storage_price: Price = 0.023
    """Price of a gigabyte kept for a month."""
    seconds_per_job: Positive | None = None
    """For the plan, until results of the same base tell how long a job takes."""
    quotas: dict[str, Quota] = Field(default_factory=dict)
    """By tenant."""
    defaults: dict[str, object] = Field(default_factory=dict)
    """Keys that every job has which does not say otherwise."""

    @model_validator(mode="after")
    def _agree(self) -> FleetSettings:
        limited = [name for name, quota in self.quotas.items() if quota.money is not None]
        if limited and not self.prices:
            raise ValueError(f"money in [quotas.{limited[0]}] needs [prices], by which it is counted")
        return self
