"""Which job is next: by priority, then the tenant who has had least of his share, then deadline, then order."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..config.fleet import Quota
from .jobs import Job
from .records import Task


@dataclass
class Waiting:
    """A job with what earlier attempts left: it goes round between schedule and workers."""

    job: Job
    ready: float  # when it was ready to run, in seconds since 1970
    trial: int = 1
    low_memory: bool = False
    alone: bool = False  # not to be trained together with others
    wasted: float = 0.0
    avoid: set[str] = field(default_factory=set)
    kills: dict[str, int] = field(default_factory=dict)  # by node
    busy: int = 0  # how often another driver's worker was at it

    def task(
        self, number: int, store: str, scratch: Path | None, prices: dict[str, float], money_limited: bool,
        runs: Path | None,
    ) -> Task:  # fmt: skip
        """The next attempt at it. store: address."""
        job = self.job
        return Task(
            number, job.tenant, job.id, job.row, job.mark, job.body, store, self.trial, self.low_memory, self.alone,
            self.ready, self.wasted, str(scratch) if scratch else None, prices, money_limited,
            str(runs) if runs else None,
        )  # fmt: skip


@dataclass
class _Tenant:
    quota: Quota
    heap: list[tuple[int, float, int, Waiting]] = field(default_factory=list)
    in_flight: int = 0
    seconds: float = 0.0
    money: float = 0.0
    served: float = 0.0  # jobs given to workers, over the share
    unpriced: bool = False  # his money cannot be counted

    @property
    def spent(self) -> bool:
        """Whether a budget is used up, or cannot be counted."""
        over_time = self.quota.seconds is not None and self.seconds >= self.quota.seconds
        return self.unpriced or over_time or (self.quota.money is not None and self.money >= self.quota.money)

    @property
    def full(self) -> bool:
        return self.quota.in_flight is not None and self.in_flight >= self.quota.in_flight


class Schedule:
    """Jobs that wait. Nothing of it is durable: it follows from the rows and the store."""

    def __init__(self, quotas: dict[str, Quota], now: Callable[[], float]) -> None:
        self.quotas, self.now = quotas, now
        self.tenants: dict[str, _Tenant] = {}
        self.delayed: list[tuple[float, int, Waiting]] = []
        self.count = itertools.count()
        self.waiting = 0

    def add(self, item: Waiting, delay: float = 0.0) -> None:
        """A job, to be run not before so many seconds."""
        self.waiting += 1
        if delay > 0:
            heapq.heappush(self.delayed, (self.now() + delay, next(self.count), item))
        else:
            self._push(item)

    def _push(self, item: Waiting) -> None:
        tenant = self._tenant(item.job.tenant)
        heapq.heappush(tenant.heap, (-item.job.priority, item.job.deadline, next(self.count), item))

    def _tenant(self, name: str) -> _Tenant:
        if name not in self.tenants:
            first = min((one.served for one in self.tenants.values() if one.heap), default=0.0)
            self.tenants[name] = _Tenant(self.quotas.get(name, Quota()), served=first)
        return self.tenants[name]

    def next(self) -> Waiting | None:
        """The job to be run now; None where none may."""
        while self.delayed and self.delayed[0][0] <= self.now():
            self._push(heapq.heappop(self.delayed)[2])
        able = [one for one in self.tenants.values() if one.heap and not one.spent and not one.full]
        if not able:
            return None
        tenant = min(able, key=lambda one: (one.heap[0][0], one.served, one.heap[0][1], one.heap[0][2]))
        tenant.in_flight += 1
        tenant.served += 1.0 / tenant.quota.share
        self.waiting -= 1
        return heapq.heappop(tenant.heap)[3]

    def ended(self, tenant: str, seconds: float, money: float) -> None:
        """A job that `next` gave out is back."""
        entry = self._tenant(tenant)
        entry.in_flight -= 1
        entry.seconds += seconds
        entry.money += money

    def hold(self, tenant: str) -> bool:
        """Give out nothing more of a tenant whose money cannot be counted. Returns whether that is new."""
        entry = self._tenant(tenant)
        before, entry.unpriced = entry.unpriced, True
        return not before

    def pause(self) -> float | None:
        """Seconds until a delayed job is ready; None where none is delayed."""
        return max(0.0, self.delayed[0][0] - self.now()) if self.delayed else None

    def held(self) -> list[Waiting]:
        """Jobs of tenants whose budget is used up or cannot be counted, taken out."""
        found: list[Waiting] = []
        for tenant in self.tenants.values():
            if tenant.spent:
                found += [entry[3] for entry in tenant.heap]
                tenant.heap = []
        self.waiting -= len(found)
        return found
