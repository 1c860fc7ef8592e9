"""What is freed stays with the process after `keep`, and goes with `release`."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from maquette.fast import memory

PROGRAM = """
import resource, torch
from maquette.fast import memory

def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def pages():
    return int(open("/proc/self/statm").read().split()[1])

torch.manual_seed(0)
sizes = [torch.randint(9 << 20, 12 << 20, (1,)).item() for _ in range(6)]  # 36 to 48 MB
work = lambda: [torch.ones(size) for size in sizes]
usual = min(faults(work) for _ in range(4))
assert memory.keep()
kept = min(faults(work) for _ in range(8))
before = pages()
assert memory.release()
print(usual, kept, before - pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_pages_are_used_again() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept, released = map(int, ran.stdout.split())
    assert usual > 64  # huge pages may make them few
    assert kept < usual / 4
    assert released > 10_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep() and not memory.release()
