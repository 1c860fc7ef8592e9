"""What must be true of a root whatever was killed: `require_whole`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def require_whole(root: Path, jobs: int, kills: int = 0) -> None:
    """Each job one result, done; its files as it says; not more attempts than jobs and what was at work when killed."""
    results = [json.loads(file.read_bytes()) for file in root.glob("runs/*/*/*/result.json")]
    assert len({told["job"] for told in results}) == len(results) == jobs
    for told in results:
        assert told["status"] == "done", told
        place = root / "runs" / told["tenant"] / told["key"][:2] / told["key"] / "attempts" / told["attempt"]
        assert told["files"]
        for name, digest in told["files"].items():
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    assert len(list(root.glob("runs/*/*/*/attempts/*"))) <= jobs + kills
