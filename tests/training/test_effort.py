"""Estimates of time and memory: the arithmetic of a UNet, counted from its shapes."""

from __future__ import annotations

import builtins
import math
import sys

import pytest

from maquette.training import effort
from maquette.training.costs import base_facts
from maquette.training.effort import estimate_effort, forward_work, processor_speed


def test_the_count_agrees_with_the_operations_that_torch_performs() -> None:
    """Every matrix product, convolution and attention of one forward pass of the pocket UNet, counted while it runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from maquette import families

    base = families.load("pocket")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base.predict(torch.zeros(1, 4, 16, 16), torch.tensor([5]), base.encode_text([""]))
    performed = counter.get_total_flops()
    counted, _ = forward_work(base_facts("pocket").shapes, 16 * 16) or (0.0, 0.0)
    assert counted == pytest.approx(performed, rel=0.15)


def test_original_names_are_counted_as_diffusers_names_are() -> None:
    diffusers = {
        "down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3),
        "down_blocks.1.resnets.0.conv1.weight": (8, 8, 3, 3),
        "mid_block.resnets.0.conv1.weight": (8, 8, 3, 3),
        "up_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3),
        "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (8, 16),
        "time_embedding.linear_1.weight": (32, 8),
    }
    original = {
        "input_blocks.1.0.in_layers.2.weight": (8, 8, 3, 3),
        "input_blocks.4.0.in_layers.2.weight": (8, 8, 3, 3),
        "middle_block.0.in_layers.2.weight": (8, 8, 3, 3),
        "output_blocks.0.0.in_layers.2.weight": (8, 8, 3, 3),
        "output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight": (8, 16),
        "time_embed.0.weight": (32, 8),
    }
    by_hand = 2 * 8 * 8 * 9 * (64 + 16 + 16 + 16) + 2 * 8 * 16 * 77 + 2 * 32 * 8
    assert forward_work(diffusers, 64) == forward_work(original, 64) == (by_hand, 8 * (64 + 16 + 16 + 16) + 8 * 77 + 32)
    assert forward_work({"encoder.weight": (3, 3)}, 64) is None


def test_time_and_memory_grow_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "_speed", lambda: (1e9, 0.5, 4, "CPU"))
    shapes = base_facts("pocket").shapes
    one = estimate_effort(shapes, 256, 100, 1, 1000)
    more = estimate_effort(shapes, 256, 300, 8, 1000)
    assert one is not None and more is not None
    assert more.seconds == pytest.approx(3 * one.seconds)
    assert more.memory_bytes > one.memory_bytes > 4 * sum(math.prod(shape) for shape in shapes.values())
    assert "at an assumed 50% of the 1 GFLOP/s that this CPU just reached" in one.how
    assert one.how.endswith("within a factor of three, and longer where other programs work at the same time")


def test_speed_is_counted_in_the_time_that_the_processor_gave() -> None:
    """A clock of processor time that ticks in hundredths; each piece of work takes 4 ms of it, the first 50."""
    taken = 0.0
    pieces = 0

    def work() -> None:
        nonlocal taken, pieces
        taken += 0.05 if pieces == 0 else 0.004
        pieces += 1

    speed = processor_speed(work, 8e6, clock=lambda: round(math.floor(taken * 100 + 1e-6) / 100, 2), least=0.1)
    assert speed == pytest.approx(8e6 / 0.004, rel=0.1)
    assert 26 <= pieces <= 29  # 25 in a tenth of a second, and what a tick hides


def test_waiting_for_other_programs_does_not_count() -> None:
    """Work that sleeps three times as long as it computes is as fast as the same without sleep."""
    import time

    import numpy as np

    a = np.ones((256, 256), np.float32)

    def product() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.002:
            a @ a

    def sleepy() -> None:
        product()
        time.sleep(0.006)

    awake = processor_speed(product, 1e6, least=0.02)
    assert processor_speed(sleepy, 1e6, least=0.02) == pytest.approx(awake, rel=0.5)


def test_the_facts_of_pocket_without_torch_are_those_of_opening_it() -> None:
    from maquette.families.loading import find

    opened, facts = find("pocket"), base_facts("pocket")
    assert facts.shapes == {name: tuple(tensor.shape) for name, tensor in opened.parts["unet"].items()}
    assert (facts.name, facts.native_size, facts.latent_factor) == ("pocket", 64, 4)
    assert (opened.spec.native_size, opened.spec.latent_factor) == (64, 4)


def test_a_machine_without_a_driver_has_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """And PyTorch, which tells the truth where there is one, is not loaded to be asked."""
    monkeypatch.setattr(effort, "has_driver", lambda: False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(builtins, "__import__", None)  # nothing can be imported
    assert not effort.has_card()
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert effort.has_card()
