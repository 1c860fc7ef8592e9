"""The studio's side of drawing, with a drawing process that needs no torch."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from maquette.errors import MaquetteError
from maquette.formats.png import parse_infotext
from maquette.sampling.lora_folder import lora_files
from maquette.studio.drawings import DrawingFailed, Progress, Refused
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
from tests.studio.serving import lora_file


def pixels(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png)).convert("RGB")


def png_of(colour: str, side: int = 64) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DrawingEngine]:
    lora_file(tmp_path / "loras" / "anna.safetensors", ss_output_name="Anna")
    made = DrawingEngine(Library([tmp_path / "bases"], [tmp_path / "loras"]), tmp_path / "data", fake=True)
    yield made
    made.close()
    assert not (tmp_path / "data" / "drawing").exists()


def test_draws_the_same_picture_again_and_another_by_another_seed(engine: DrawingEngine) -> None:
    first, again = (engine.draw({"prompt": "a cat", "seed": 1, "steps": 2}).pictures[0] for _ in range(2))
    other = engine.draw({"prompt": "a cat", "seed": 2, "steps": 2}).pictures[0]
    assert first.png == again.png != other.png
    assert Image.open(BytesIO(first.png)).info["parameters"] == first.infotext
    assert parse_infotext(first.infotext)["Seed"] == "1"


def test_a_loras_weight_changes_the_picture_and_weight_0_does_not(engine: DrawingEngine) -> None:
    def drawn(tags: str) -> list[int]:
        drawing = engine.draw({"prompt": f"a cat{tags}", "seed": 1, "steps": 2})
        assert drawing.warnings == []
        return list(pixels(drawing.pictures[0].png).tobytes())

    plain = drawn("")
    assert drawn(" <lora:anna:0>") == plain
    assert drawn(" <lora:anna:0.8>") != plain != drawn(" <lora:Anna:0.5>")


def test_an_unknown_lora_is_a_warning(engine: DrawingEngine) -> None:
    drawing = engine.draw({"prompt": "a cat <lora:bob:1>", "steps": 2})
    assert len(drawing.pictures) == 1
    assert drawing.warnings == ["There is no LoRA 'bob'; there are Anna, anna. Drawn without it."]


def test_progress_goes_up_and_is_0_when_idle(engine: DrawingEngine) -> None:
    seen: list[Progress] = []
    engine.draw({"prompt": "a cat", "steps": 4, "batch_count": 2}, seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert seen[-1].step == seen[-1].steps == 8
    assert {progress.job_no for progress in seen} == {0, 1}
    assert any(progress.preview for progress in seen)
    assert engine.progress() == Progress() and engine.progress().fraction == 0 == engine.progress().job_count


def test_interrupt_ends_a_drawing_in_its_middle(engine: DrawingEngine) -> None:
    seen: list[Progress] = []

    def stop_at_3(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 3:
            engine.interrupt()

    drawing = engine.draw({"prompt": "a cat", "steps": 1000, "batch_count": 3}, stop_at_3)
    assert drawing.interrupted and len(drawing.pictures) == 1
    assert seen[-1].step < 100
    assert not engine.draw({"prompt": "a cat", "steps": 2}).interrupted


def test_pictures_to_begin_from_are_nowhere_afterwards(engine: DrawingEngine, tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    stream = BytesIO()
    mask.save(stream, format="PNG")
    request = {"init_image": png_of("red"), "mask": stream.getvalue(), "mask_blur": 0, "denoising_strength": 1.0}
    drawn = pixels(engine.draw({"prompt": "a cat", "seed": 1, "steps": 2, **request}).pictures[0].png)
    assert drawn.getpixel((5, 30)) == (255, 0, 0) != drawn.getpixel((50, 30))
    assert not list((tmp_path / "data" / "drawing").iterdir())


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("fake crash", "died", "The drawing process ended by itself (code 9). The next picture starts it again."),
        ("fake memory", "memory", "Memory ran out while drawing. Draw a smaller picture or fewer at once, or close"),
        ("fake error", "internal", "Drawing failed: ValueError: as the prompt asked"),
    ],
)
def test_a_fault_is_told_and_the_next_picture_is_drawn(
    engine: DrawingEngine, prompt: str, kind: str, message: str
) -> None:
    with pytest.raises(DrawingFailed) as found:
        engine.draw({"prompt": prompt, "steps": 3})
    assert found.value.kind == kind and str(found.value).startswith(message)
    assert engine.progress() == Progress()
    assert engine.draw({"prompt": "a cat", "steps": 2}).pictures


def test_a_killed_process_is_told_with_its_signal(engine: DrawingEngine) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(engine.pid or 0, signal.SIGKILL)

    with pytest.raises(DrawingFailed, match=r"\(signal 9\)\. Often memory ran out"):
        engine.draw({"prompt": "a cat", "steps": 1000}, kill)
    assert engine.draw({"prompt": "a cat", "steps": 2}).pictures


def test_switches_models(engine: DrawingEngine, tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "Mine.ckpt").write_bytes(b"x")
    plain = engine.draw({"prompt": "a cat", "seed": 1, "steps": 2})
    assert engine.set_model("mine.ckpt [0123]").name == "Mine"
    other = engine.draw({"prompt": "a cat", "seed": 1, "steps": 2})
    assert (plain.model.name, other.model.name) == ("pocket", "Mine")
    assert plain.pictures[0].png != other.pictures[0].png and plain.model_hash != other.model_hash
    once = engine.draw({"prompt": "a cat", "seed": 1, "steps": 2, "base": "pocket"})
    assert once.pictures[0].png == plain.pictures[0].png and engine.model.name == "Mine"
    with pytest.raises(MaquetteError, match="There is no model 'gone'; there are pocket, Mine"):
        engine.set_model("gone")


def test_refuses_while_a_job_trains_and_frees_its_memory(tmp_path: Path) -> None:
    reason: list[str] = []
    engine = DrawingEngine(Library([], []), tmp_path, fake=True, blocked=lambda: reason[0] if reason else None)
    engine.draw({"prompt": "a cat", "steps": 2})
    assert engine.pid
    reason.append("Anna trains.")
    engine.release()
    assert engine.pid is None
    with pytest.raises(Refused, match=r"Anna trains\.") as refused:
        engine.draw({"prompt": "a cat"})
    assert refused.value.retry_after > 0
    engine.close()
    with pytest.raises(Refused, match="closing"):
        engine.draw({"prompt": "a cat"})


def test_closing_ends_a_drawing_at_work(tmp_path: Path) -> None:
    engine = DrawingEngine(Library([], []), tmp_path, fake=True)
    began = threading.Event()
    ended: list[Exception] = []

    def draw() -> None:
        try:
            engine.draw({"prompt": "a cat", "steps": 1000}, lambda progress: began.set() if progress.step else None)
        except Refused as error:
            ended.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    assert began.wait(20)
    engine.close()
    thread.join(20)
    assert [str(error) for error in ended] == ["The studio is closing."]


PARENT = """
import sys, time, pathlib
from maquette.studio.engine import DrawingEngine
from maquette.studio.library import Library
engine = DrawingEngine(Library([], []), pathlib.Path(sys.argv[1]), fake=True)
engine.draw({"prompt": "a cat", "steps": 1000}, lambda p: print(engine.pid, flush=True) if p.step == 1 else None)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is no child, which Linux can")
def test_the_process_dies_with_a_killed_server(tmp_path: Path) -> None:
    import select

    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watched = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert select.select([watched], [], [], 20)[0], "the drawing process outlives its server"
    os.close(watched)


def test_the_library_names_files_of_one_name_apart(tmp_path: Path) -> None:
    old = lora_file(tmp_path / "run-1" / "anna.safetensors")
    new = lora_file(tmp_path / "run-2" / "anna.safetensors")
    os.utime(old, (1, 1))
    lora_file(tmp_path / "run-2" / "state" / "anna.safetensors")
    found = {lora.name: lora.path for lora in Library([], [tmp_path]).loras()}
    assert found == {"anna": str(new), "run-1/anna": str(old)}


def test_the_library_finds_what_generate_finds(tmp_path: Path) -> None:
    """Linked folders, LoRAs of diffusers of 2023, PEFT's folders of several networks."""
    lora_file(tmp_path / "elsewhere" / "linked.safetensors")
    loras = tmp_path / "loras"
    loras.mkdir()
    (loras / "shared").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (loras / "round").symlink_to(loras, target_is_directory=True)
    processors = lora_file(loras / "processors.safetensors")
    old = b"mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
    head = processors.read_bytes()[8:].replace(b"lora_unet_x.lora_down.weight", old)
    processors.write_bytes(len(head).to_bytes(8, "little") + head)
    for network in ("unet", "text_encoder"):
        lora_file(loras / "both" / network / "adapter_model.safetensors")
        (loras / "both" / network / "adapter_config.json").write_text("{}")
    found = {lora.name: lora.path for lora in Library([], [loras]).loras()}
    assert found == {
        "linked": str(loras / "shared" / "linked.safetensors"),
        "processors": str(processors),
        "both": str(loras / "both"),
    }
    assert [lora.name for lora in Library([], [loras / "both"]).loras()] == ["both"]
    assert set(lora_files(loras)) == set(found)
