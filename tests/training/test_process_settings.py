"""A call of the library leaves its process as it was."""

from __future__ import annotations

import platform
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from maquette.config import TrainConfig
from maquette.events import Cancel, Cancelled, Event, Listener, ignore
from maquette.fast import memory
from maquette.stages import train
from maquette.training.process_settings import process_settings
from tests.training.interrupted import make_photos


def settings(folder: Path, **changes: object) -> TrainConfig:
    values = {"photos": folder, "subject": "zkw disc", "device": "cpu", "sample_prompts": [], "dtype": "fp32"}
    return TrainConfig.parse(values | changes)


def test_training_draws_nothing_from_the_global_generator_of_its_caller(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    result = train.run(settings(photos, out=tmp_path / "disc", steps=1, batch_size=1, rank=2, dropout=0.5))
    assert result.status == "finished" and torch.equal(torch.rand(3), expected)


def test_limits_of_the_compiler_and_kernels_are_put_back(tmp_path: Path) -> None:
    import torch._dynamo.config as limits

    before = limits.recompile_limit, limits.accumulated_recompile_limit
    with process_settings(settings(tmp_path, compile=True, deterministic=True)):
        assert limits.recompile_limit >= 1024 and limits.accumulated_recompile_limit >= 16 * 1024
        assert torch.are_deterministic_algorithms_enabled()
    assert (limits.recompile_limit, limits.accumulated_recompile_limit) == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("deterministic", [False, True])
def test_attention_is_left_to_sound_kernels(deterministic: bool, tmp_path: Path) -> None:
    """cuDNN's gives gradients that are not finite in bf16 (H200, PyTorch 2.11); the memory-efficient one adds in any
    order."""

    def allowed() -> list[bool]:
        cuda = torch.backends.cuda
        return [
            cuda.cudnn_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.flash_sdp_enabled(),
            cuda.math_sdp_enabled(),
        ]  # fmt: skip

    before = allowed()
    with process_settings(settings(tmp_path, deterministic=deterministic)):
        assert allowed() == [False, not deterministic, True, True]
    assert allowed() == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_kept_no_longer() -> None:
    assert memory.keep() and memory.keep_no_longer()


def test_two_trainings_in_two_threads_end_in_the_files_that_they_give_alone(tmp_path: Path) -> None:
    photos, heard, told = make_photos(tmp_path / "photos"), threading.Event(), list[str]()

    def trained(name: str, on_event: Listener = ignore) -> bytes:
        config = settings(photos, out=tmp_path / name / "run", steps=6, batch_size=1, rank=2, dropout=0.5)
        file = train.run(config, on_event).file
        assert file is not None
        return Path(file).read_bytes()

    def second(event: Event) -> None:
        told.append(event.data.get("message", event.kind))
        heard.set()

    alone, others = trained("alone"), list[Future[bytes]]()
    with ThreadPoolExecutor(1) as threads:

        def first(event: Event) -> None:
            if event.kind == "metric" and not others:
                others.append(threads.submit(trained, "second", second))
                assert heard.wait(60)

        assert trained("first", first) == alone
        assert others[0].result() == alone
    assert told[0].startswith("Another training is at work in this process")


def test_a_training_that_waits_for_another_can_be_ended(tmp_path: Path) -> None:
    config, cancel, told = settings(tmp_path / "none", out=tmp_path / "run"), Cancel(), list[str]()

    def listen(event: Event) -> None:
        told.append(event.data["message"])
        cancel.set()

    with ThreadPoolExecutor(1) as threads, process_settings(config):
        ended = threads.submit(train.run, config, listen, cancel).exception()
    assert isinstance(ended, Cancelled) and "nothing was written" in str(ended)
    assert len(told) == 1 and not (tmp_path / "run").exists()
