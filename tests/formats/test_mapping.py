"""Files as memory, and memory that goes again."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch

from maquette.formats import mapping, safetensors

PAGE = mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system knows no such thing")
def test_pages_that_were_read_go_and_come_again(tmp_path: Path) -> None:
    """Seen by what was written into them, which goes with them; the neighbours' stays."""
    content = torch.arange(12 * PAGE).to(torch.uint8)
    (tmp_path / "a").write_bytes(content.numpy().tobytes())
    whole = mapping.mapped(tmp_path / "a", 12 * PAGE)
    assert torch.equal(whole, content)
    before, part, behind = whole.split([3 * PAGE + 5, 6 * PAGE, 3 * PAGE - 5])
    for each in (before, part, behind):
        each.fill_(255)
    assert mapping.unread(part)
    assert (before == 255).all() and (behind == 255).all()
    first, last = PAGE - 5, 6 * PAGE - 5  # of the pages that are the part's alone
    assert torch.equal(part[first:last], content[4 * PAGE : 9 * PAGE])
    assert (part[:first] == 255).all() and (part[last:] == 255).all()
    assert mapping.unread(whole) and torch.equal(whole, content)


def test_what_is_not_mapped_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(4 * PAGE))
    whole = mapping.mapped(tmp_path / "a", 4 * PAGE)
    small, turned = whole[5:100].fill_(1), whole.view(4, PAGE).t()
    own = torch.ones(4 * PAGE)
    assert not any(map(mapping.unread, (small, turned, own, torch.ones(3, device="meta"))))
    assert (small == 1).all() and (own == 1).all()
    places = len(mapping._AREAS)
    del whole, small, turned
    gc.collect()
    assert len(mapping._AREAS) < places


def test_a_network_is_read_from_a_file_whose_pages_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors of another type than is asked for; others are used as they lie there."""
    from maquette.families import modules

    numbers = torch.randn(300, 400)
    safetensors.save({"weight": numbers.half(), "bias": torch.ones(300)}, tmp_path / "a.safetensors")
    gone: list[tuple[int, ...]] = []
    unread = mapping.unread
    monkeypatch.setattr(modules, "unread", lambda tensor: gone.append(tuple(tensor.shape)) or unread(tensor))
    found = safetensors.load(tmp_path / "a.safetensors")
    with modules.unfilled():
        layer = torch.nn.Linear(400, 300)
    filled = modules.fill(layer, found, "it", torch.float32, "cpu")
    assert gone == [(300, 400)]
    assert torch.equal(filled.weight, numbers.half().float()) and torch.equal(filled.bias, torch.ones(300))
    assert torch.equal(found["weight"], numbers.half())  # read again
