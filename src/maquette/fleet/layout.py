"""Where things lie in the store.

    fleet.toml                                   prices and quotas
    jobs/HASH.jsonl                              submissions
    runs/TENANT/KK/KEY/attempts/ID/…             what one attempt made, unique, whoever else works on the same job
    runs/TENANT/KK/KEY/result.json               written last, and only where there is none: the commit
    results/part-ID.jsonl                        results once more, many in a file, so that listing them is quick
    cancelled/HASH                               jobs that are not to be run
    sessions/ID.json                             what the workers of one `fleet run` did with their time

A tenant's objects lie below one prefix, so that the store's own permissions can keep tenants apart.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from pathlib import Path

PINNED = "fleet.toml"
JOBS = "jobs"
RUNS = "runs"
PARTS = "results"
CANCELLED = "cancelled"
SESSIONS = "sessions"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # no dot, so that it is never a way up


def run_folder(tenant: str, key: str) -> str:
    return f"{RUNS}/{tenant}/{key[:2]}/{key}"


def result(tenant: str, key: str) -> str:
    return f"{run_folder(tenant, key)}/result.json"


def attempts(tenant: str, key: str) -> str:
    return f"{run_folder(tenant, key)}/attempts"


def new_attempt(number: int) -> str:
    """A name that no other attempt has, on whatever machine."""
    return f"{number:02d}-{uuid.uuid4().hex[:16]}"


def cancelled(tenant: str, job: str) -> str:
    return f"{CANCELLED}/{name_hash(tenant, job)}"


def name_hash(*words: str) -> str:
    """24 hexadecimal digits of names, which do not show them."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """sha256 of a file, as hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
