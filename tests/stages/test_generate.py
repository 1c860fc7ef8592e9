from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maquette
from maquette import families
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.base import BaseModel
from maquette.formats import safetensors
from maquette.formats.png import parse_infotext, read_infotext
from maquette.sampling.images import to_image
from maquette.stages.generate import GenerateConfig, GenerateResult, run
from maquette.stages.repeat import repeated
from tests.sampling.random_loras import random_adapter, write_lora

PROMPT = "a photo of a cat on a red background"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.fixture(scope="module")
def loras(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "state" / "000100").mkdir(parents=True)
    write_lora(base, folder / "run" / "robot.safetensors", name="robot")
    write_lora(base, folder / "run" / "checkpoints" / "robot-000100.safetensors", seed=1, name="first try")
    write_lora(base, folder / "run" / "state" / "000100" / "adapter.safetensors", seed=2)
    return folder


def draw(base: BaseModel, out: Path, prompt: str = PROMPT, **options: Any) -> GenerateResult:
    values = {"prompt": prompt, "out": out, "steps": 3, "seed": 7, **options}
    return run(GenerateConfig.parse(values), base=base)


def pixels(result: GenerateResult, index: int = 0) -> np.ndarray:
    with Image.open(result.paths[index]) as image:
        return np.asarray(image).astype(int)


def difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first - second).max())


@pytest.mark.parametrize("sampler", ["DDIM", "Euler a", "DPM++ 2M SDE Karras"])
def test_a_batch_equals_its_pictures_one_by_one(base: BaseModel, tmp_path: Path, sampler: str) -> None:
    batch = draw(base, tmp_path, sampler=sampler, batch_size=2, batch_count=2)
    assert batch.seeds == [7, 8, 9, 10]
    assert len({pixels(batch, i).tobytes() for i in range(4)}) == 4
    for i in (1, 2):
        single = draw(base, tmp_path, sampler=sampler, seed=7 + i)
        assert difference(pixels(single), pixels(batch, i)) == 0
    at_once = draw(base, tmp_path, sampler=sampler, batch_size=2, batch_count=2, exact_batch=False)
    for i in range(4):  # rounding of float32 sums of other shapes
        assert difference(pixels(at_once, i), pixels(batch, i)) <= 1


def test_files_are_numbered_on_and_never_overwritten(base: BaseModel, tmp_path: Path) -> None:
    first = draw(base, tmp_path / "a" / "b", batch_size=2)
    second = draw(base, tmp_path / "a" / "b")
    names = [Path(path).name for path in first.paths + second.paths]
    assert names == ["00001-7.png", "00002-8.png", "00003-7.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_another_process_takes_meanwhile_is_left_to_it(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    save, link, seen = Image.Image.save, os.link, []

    def saved(self: Image.Image, file: Any, **options: Any) -> None:
        if not seen:  # between looking for a free name and giving it
            seen.append((tmp_path / "00001-7.png").write_bytes(b"of another process"))
        save(self, file, **options)

    def linked(source: Path, target: Path) -> None:
        if not links:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(Image.Image, "save", saved)
    monkeypatch.setattr(os, "link", linked)
    made = draw(base, tmp_path, steps=1)
    assert (tmp_path / "00001-7.png").read_bytes() == b"of another process"
    assert [Path(path).name for path in made.paths] == ["00001-7-1.png"] and pixels(made).shape == (64, 64, 3)
    assert len(list(tmp_path.iterdir())) == 2


def test_infotext_makes_the_picture_again(base: BaseModel, tmp_path: Path, loras: Path) -> None:
    prompt = "a (cat:1.2), red <lora:robot:0.5>"
    made = draw(
        base, tmp_path, prompt, lora_dir=loras, negative_prompt="blue", sampler="DPM++ 2M Karras", clip_skip=2,
        width=64, height=48,
    )  # fmt: skip
    text = read_infotext(made.paths[0])
    assert text == made.infotexts[0]
    values = parse_infotext(text)
    assert list(values)[:8] == [
        "Prompt", "Negative prompt", "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size-1",
    ]  # fmt: skip
    assert values["Prompt"] == prompt
    assert (values["Sampler"], values["Schedule type"]) == ("DPM++ 2M", "Karras")
    assert (values["CFG scale"], values["Clip skip"], values["RNG"]) == ("4", "2", "CPU")
    assert (values["Model"], values["Model hash"]) == ("pocket", base.content_hash[:10])
    body = safetensors.body_sha256(loras / "run" / "robot.safetensors")
    assert values["Lora hashes"] == f"robot: {body[:12]}"
    assert "Denoising strength" not in values
    again = draw(
        base, tmp_path, values["Prompt"], lora_dir=loras, negative_prompt=values["Negative prompt"],
        steps=int(values["Steps"]), sampler=f"{values['Sampler']} {values['Schedule type']}", seed=int(values["Seed"]),
        cfg_scale=float(values["CFG scale"]), clip_skip=int(values["Clip skip"]), width=int(values["Size-1"]),
        height=int(values["Size-2"]),
    )  # fmt: skip
    assert difference(pixels(again), pixels(made)) == 0
    assert pixels(made).shape == (48, 64, 3)


def test_clip_skip_of_a_family_that_has_none_is_said(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "spec", replace(base.spec, clip_skip=False))
    made = draw(base, tmp_path, clip_skip=2)
    assert made.warnings == [
        "clip_skip = 2 has no effect on SDXL: it always uses the text encoders' layer before the last, which other "
        "programs and model cards call clip skip 2."
    ]
    assert draw(base, tmp_path, clip_skip=1).warnings == []


def test_random_seeds_are_recorded(base: BaseModel, tmp_path: Path) -> None:
    first, second = (draw(base, tmp_path, seed=-1) for _ in range(2))
    assert first.seeds != second.seeds
    assert parse_infotext(first.infotexts[0])["Seed"] == str(first.seeds[0])
    again = draw(base, tmp_path, seed=first.seeds[0])
    assert difference(pixels(again), pixels(first)) == 0


def test_multipliers(base: BaseModel, tmp_path: Path, loras: Path) -> None:
    def drawn(tag: str) -> np.ndarray:
        return pixels(draw(base, tmp_path, PROMPT + tag, lora_dir=loras))

    plain, one = drawn(""), drawn("<lora:robot>")
    assert difference(drawn("<lora:robot:0>"), plain) == 0
    assert difference(one, plain) > 20
    assert difference(drawn("<lora:robot:1>"), one) == 0
    assert difference(drawn("<lora:robot:te=1:unet=1>"), one) == 0
    assert difference(drawn("<lora:robot:0.5><lora:robot:0.5>"), one) <= 1
    parts = [drawn("<lora:robot:1:0>"), drawn("<lora:robot:0:1>")]
    assert all(difference(part, other) > 5 for part in parts for other in (plain, one))
    assert difference(drawn("<lora:robot:0:unet=1>"), parts[1]) == 0


def test_weights_come_back_to_the_bit(base: BaseModel, tmp_path: Path, loras: Path) -> None:
    before = [p.data for m in (base.unet, *base.text_encoders) for p in m.parameters()]
    copies = [tensor.clone() for tensor in before]
    draw(base, tmp_path, PROMPT + "<lora:robot:0.7>", lora_dir=loras)
    with pytest.raises(MaquetteError, match="folder of embeddings"):
        draw(base, tmp_path, PROMPT + "<lora:robot:0.7>", lora_dir=loras, embedding_dir=tmp_path / "absent")
    after = [p.data for m in (base.unet, *base.text_encoders) for p in m.parameters()]
    for now, then, copy in zip(after, before, copies, strict=True):
        assert now.data_ptr() == then.data_ptr()
        assert torch.equal(now, copy)


def test_a_file_is_found_by_the_name_inside_it(base: BaseModel, tmp_path: Path, loras: Path) -> None:
    by_file = draw(base, tmp_path, PROMPT + "<lora:robot-000100>", lora_dir=loras)
    by_name = draw(base, tmp_path, PROMPT + "<lora:first try>", lora_dir=loras)
    assert difference(pixels(by_file), pixels(by_name)) == 0
    single = draw(base, tmp_path, PROMPT + "<lora:robot>", lora_dir=loras / "run" / "robot.safetensors")
    assert difference(pixels(single), pixels(by_file)) > 20


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("<lora:robto>", r"There is no LoRA 'robto' in .*; it holds robot, robot-000100\. Did you mean robot\?"),
        ("<lora:adapter>", "There is no LoRA 'adapter'"),  # the state of a run is no LoRA to draw with
        ("<lora:robot:strong>", "<lora:robot:strong> has a multiplier that is no number"),
        ("<lora:robot:1:lbv=MIDD>", "unknown argument 'lbv'"),
        ("<lora:robot:1:lbw=MIDDD>", "lbw=…>: there is no preset of block weights called 'MIDDD'; did you mean MIDD"),
        ("<lora:robot:1:lbw=1,0>", "lbw=…>: the block weights 1,0 are 2 values"),
        ("<lora:robot:1:dyn=0>", r"has a rank \(dyn\) that is no whole number from 1 on"),
        ("<lora:robot:1:dyn=x>", r"has a rank \(dyn\) that is no number"),
        ("<lora:robot:1:start=-1>", "has a start or stop below 0"),
        ("<lora:robot:1:start=x>", "has a start that is no number"),
        ("<lora:robot:1:step=5>", "has a step that is no range of steps; write step=5-10, or start=5 or stop=5"),
        ("<lora:robot:1:step=-5>", "has a step that is no range of steps"),
        ("<lora:robot:1:step=10-5>", "<lora:robot:1:step=10-5> stops before it starts"),
        ("<lora:robot:1:start=0.8:stop=0.2>", "stops before it starts"),
        ("<hypernet:old:0.5>", "<hypernet:old:0.5> is a hypernetwork, which maquette cannot apply; leave it out"),
        ("<lora:robot:1:1:8:2>", "unknown fourth number"),
        ("<Lora:robot:1>", "unknown kind 'Lora'"),
        ("<lora::1>", "names no LoRA"),
        ("<lora:robot:0.8", r"<lora:robot:0\.8 is no tag and would be read as words; write <lora:NAME:0\.8>"),
        ("< lora:robot:0.8>", r"prompt's < lora:robot:0\.8> is no tag"),
        ("<lora :robot:0.8>", r"prompt's <lora :robot:0\.8> is no tag"),
        ("<lora:robot:0.8, red", r"<lora:robot:0\.8, red is no tag"),
        ("<LoRA: robot", "<LoRA: robot is no tag"),
        ("＜lora：robot：0.8＞", "is no tag"),
        ("&lt;lora:robot:0.8&gt;", "is no tag"),
        (" lora:robot:0.8>", r"prompt's lora:robot:0\.8> is no tag"),
        ("(lora:robot:0.8)", r"prompt's \(lora:robot:0\.8\) is no tag"),
        ("<lora:>", "is no tag"),
    ],
)
def test_faults_in_tags(base: BaseModel, tmp_path: Path, loras: Path, tag: str, message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        draw(base, tmp_path, PROMPT + tag, lora_dir=loras)
    assert not list(tmp_path.iterdir())


def test_faults_in_folders(base: BaseModel, tmp_path: Path, loras: Path) -> None:
    with pytest.raises(MaquetteError, match=r"absent does not exist.*--lora-dir"):
        draw(base, tmp_path, "<lora:robot>", lora_dir=tmp_path / "absent")
    with pytest.raises(MaquetteError, match=r"holds no LoRA \(\.safetensors, \.pt"):
        draw(base, tmp_path, "<lora:robot>", lora_dir=tmp_path)
    write_lora(base, tmp_path / "robot.safetensors")
    (tmp_path / "b").mkdir()
    write_lora(base, tmp_path / "b" / "robot.safetensors", seed=5)
    with pytest.raises(MaquetteError, match="Two different files are called robot"):
        draw(base, tmp_path, "<lora:robot>", lora_dir=tmp_path)


def test_partly_matching_lora_is_reported(base: BaseModel, tmp_path: Path) -> None:
    adapter = random_adapter(base)
    adapter.modules["lora_unet_down_blocks_9_attentions_0_proj_in"] = next(iter(adapter.modules.values()))
    adapter.save(tmp_path / "odd.safetensors")
    heard: list[Event] = []
    config = GenerateConfig.parse({"prompt": "<lora:odd>", "lora_dir": tmp_path, "out": tmp_path, "steps": 1})
    result = run(config, heard.append, base=base)
    [warning] = [event.data["message"] for event in heard if event.kind == "warning"]
    assert "1 of its" in warning and "unet.down_blocks.9" in warning
    assert result.warnings == [warning]


def test_events(base: BaseModel, tmp_path: Path) -> None:
    heard: list[Event] = []
    config = GenerateConfig.parse({"prompt": "x", "out": tmp_path, "steps": 2, "batch_count": 2, "sampler": "Heun"})
    run(config, heard.append, base=base)
    progress = [(event.data["done"], event.data["of"]) for event in heard if event.kind == "progress"]
    assert progress[-1] == (4, 4)
    assert progress == sorted(progress)
    assert [event.kind for event in heard if event.kind != "progress"] == ["saved", "saved", "done"]


def test_the_result_is_a_sequence_of_pictures(base: BaseModel, tmp_path: Path) -> None:
    result = maquette.generate(PROMPT, base=base, out=tmp_path, steps=1, seed=1, batch_size=2)
    assert isinstance(result[0], Image.Image)
    assert (len(result), len(list(result)), len(result[:1])) == (2, 2, 1)
    assert result[1] is result.images[1] is result[-1]
    assert np.array_equal(np.asarray(result[1]), np.asarray(Image.open(result.paths[1])))
    assert "images" not in result.to_json()


def test_comments_go_and_that_is_said(base: BaseModel, tmp_path: Path) -> None:
    without = draw(base, tmp_path, "a photo of a cat\n", negative_prompt="blue ")
    made = draw(base, tmp_path, "a photo of a cat # <lora:absent:1> red\n", negative_prompt="blue #red")
    assert difference(pixels(made), pixels(without)) == 0
    assert parse_infotext(made.infotexts[0])["Prompt"] == "a photo of a cat"
    assert [warning.split(" in the prompt is a comment")[0] for warning in made.warnings] == [
        "'# <lora:absent:1> red'", "'#red'",
    ]  # fmt: skip
    kept = draw(base, tmp_path, "a photo of a cat #red", prompt_comments=False)
    assert difference(pixels(kept), pixels(without)) > 0
    assert kept.warnings == []
    assert parse_infotext(kept.infotexts[0])["Prompt"] == "a photo of a cat #red"


def test_a_tag_in_the_negative_prompt_is_said_to_do_nothing(base: BaseModel, tmp_path: Path) -> None:
    made = draw(base, tmp_path, negative_prompt="<lora:absent:1>")
    assert made.warnings == ["<lora:…> in the negative prompt is read as words; name LoRAs in the prompt itself."]


def test_a_full_disk_names_the_file(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(MaquetteError, match=r"00001-7\.png cannot be written: No space left on device"):
        draw(base, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(MaquetteError, match=r"out is no folder, and files are to be written into .*out; give an"):
        draw(base, tmp_path / "out")


def test_numbers_are_cut_and_not_rounded() -> None:
    """As A1111 does: 0.999 becomes 254."""
    values = torch.tensor([0.0, 0.999, 1.0, 127.9 / 255]).reshape(1, 2, 2).expand(3, 2, 2)
    assert np.asarray(to_image(values))[..., 0].tolist() == [[0, 254], [255, 127]]


def test_infotext_names_the_schedule_and_the_way_of_counting(base: BaseModel, tmp_path: Path) -> None:
    def said(**options: Any) -> tuple[str | None, ...]:
        facts = parse_infotext(draw(base, tmp_path, steps=1, **options).infotexts[0])
        return tuple(facts.get(key) for key in ("Sampler", "Schedule type", "Prompt editing"))

    assert said(sampler="DPM++ 2M") == said(sampler="DPM++ 2M Karras") == ("DPM++ 2M", "Karras", None)
    assert said(sampler="DPM++ 2M", schedule_type="uniform") == ("DPM++ 2M", "Uniform", None)
    assert said(prompt_editing="exact") == ("DDIM", "Automatic", "exact")


def test_a_sampler_alone_is_karras(base: BaseModel, tmp_path: Path) -> None:
    alone, joined, uniform = (
        pixels(draw(base, tmp_path, sampler=name)) for name in ("DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M Uniform")
    )
    assert difference(alone, joined) == 0
    assert difference(alone, uniform) > 5


def test_prompt_editing_counts_calls_as_a1111_or_steps(base: BaseModel, tmp_path: Path) -> None:
    """A1111 switches one call late, and a sampler of two calls has twice the steps for a share and not for a number."""

    def drawn(prompt: str, **options: Any) -> np.ndarray:
        return pixels(draw(base, tmp_path, prompt, steps=4, **options))

    assert difference(drawn("a [cat:house:1]"), drawn("a [cat:house:2]", prompt_editing="exact")) == 0
    assert difference(drawn("a [cat:house:3]"), drawn("a cat")) == 0  # calls 0 to 3 are all not beyond 3
    assert difference(drawn("a [cat:house:3]", prompt_editing="exact"), drawn("a cat")) > 5
    heun = {"sampler": "Heun"}
    assert difference(drawn("a [cat:house:0.75]", **heun), drawn("a cat", **heun)) == 0  # of 7 calls the last is 6
    assert difference(drawn("a [cat:house:6]", **heun), drawn("a cat", **heun)) == 0
    assert difference(drawn("a [cat:house:5]", **heun), drawn("a cat", **heun)) > 0


def test_image_to_image_counts_its_own_calls(base: BaseModel, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    image = {"init_image": tmp_path / "red.png", "denoising_strength": 0.5, "steps": 8, "sampler": "Euler"}

    def drawn(prompt: str, **options: Any) -> np.ndarray:
        return pixels(draw(base, tmp_path, prompt, **image, **options))

    assert difference(drawn("a [cat:house:0.5]"), drawn("a cat")) == 0  # 5 calls, 0 to 4, of a schedule of 8
    assert difference(drawn("a [cat:house:3]"), drawn("a cat")) > 0
    exact = {"prompt_editing": "exact"}
    assert difference(drawn("a [cat:house:3]", **exact), drawn("a house")) == 0  # it begins with the 4th step
    assert difference(drawn("a [cat:house:0.5]", **exact), drawn("a house")) > 0


def test_prompt_editing_changes_the_picture_at_its_step(base: BaseModel, tmp_path: Path) -> None:
    never = draw(base, tmp_path, "a photo of a cat", steps=4)
    late = draw(base, tmp_path, "a photo of a [cat:house:4]", steps=4)
    early = draw(base, tmp_path, "a photo of a [cat:house:0]", steps=4)
    middle = draw(base, tmp_path, "a photo of a [cat:house:2]", steps=4)
    house = draw(base, tmp_path, "a photo of a house", steps=4)
    assert difference(pixels(late), pixels(never)) == 0
    assert difference(pixels(early), pixels(house)) == 0
    assert difference(pixels(middle), pixels(never)) > 10
    assert difference(pixels(middle), pixels(house)) > 10


def test_and_of_a_prompt_with_itself_is_twice_the_guidance(base: BaseModel, tmp_path: Path) -> None:
    double = draw(base, tmp_path, "a cat AND a cat", cfg_scale=2)
    halves = draw(base, tmp_path, "a cat :0.5 AND a cat :0.5", cfg_scale=4)
    assert difference(pixels(double), pixels(draw(base, tmp_path, "a cat ", cfg_scale=4))) <= 2
    assert difference(pixels(halves), pixels(draw(base, tmp_path, "a cat", cfg_scale=4))) <= 2


def test_image_to_image(base: BaseModel, tmp_path: Path) -> None:
    ramp = np.linspace(40, 200, 128).astype(np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(ramp, (96, 128))] * 3, -1)).save(tmp_path / "ramp.png")

    def drawn(strength: float) -> np.ndarray:
        return pixels(draw(base, tmp_path, steps=10, init_image=tmp_path / "ramp.png", denoising_strength=strength))

    with Image.open(tmp_path / "ramp.png") as image:
        middle = np.asarray(image.crop((16, 0, 112, 96)).resize((64, 64))).astype(int)
    distances = [float(np.abs(drawn(strength) - middle).mean()) for strength in (0.0, 0.3, 0.9)]
    assert distances[0] < 10  # the autoencoder's own error
    assert distances == sorted(distances)
    assert distances[2] > 3 * distances[0]
    made = draw(base, tmp_path, init_image=tmp_path / "ramp.png")
    assert parse_infotext(made.infotexts[0])["Denoising strength"] == "0.75"
    with pytest.raises(MaquetteError, match=r"absent\.png"):
        draw(base, tmp_path, init_image=tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "Euler b"}, r"no sampler called 'Euler b'.*DDIM"),
        ({"cfg": 7}, r"unknown key 'cfg'"),
        ({"width": 100}, r"width = 100 is not possible"),
        ({"steps": 0}, r"steps = 0 is not possible"),
        ({"device": "gpu"}, r"no device 'gpu'"),
        ({"steps": 1001}, r"steps = 1001 is not possible"),
        ({"cfg_scale": float("inf")}, r"cfg_scale = inf is not possible"),
        ({"sampler": "Euler a", "schedule_type": "Linear"}, r"no schedule type 'Linear'; give Automatic, Uniform"),
        ({"prompt": "a" * 10_001}, r"The prompt has 10,001 characters"),
        ({"negative_prompt": "a" * 10_001}, r"The prompt has 10,001 characters"),
        ({"prompt": "caf\udce9"}, "prompt holds half of a character, which no file can: write it in UTF-8"),
        ({"seed": 2**63 - 1, "batch_size": 2}, r"seed grows by one from picture to picture, beyond 2\^63 - 1"),
        ({"seed": 2**63 - 3, "batch_count": 4}, r"seed grows by one from picture to picture"),
        ({"variation_seed": 2**63 - 1, "variation_strength": 0.5, "batch_size": 2}, "variation_seed grows by one"),
        ({"quality": 95}, "quality is of jpg, webp and avif, a PNG loses nothing: give image_format too"),
        ({"hires_prompt": "\ud800", "hires_scale": 2}, "hires_prompt holds half of a character"),
    ],
)
def test_faults_in_options(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        run(GenerateConfig.parse({"prompt": "x", "out": tmp_path, **values}))


def test_the_last_seed_is_drawn_and_repeated(base: BaseModel, tmp_path: Path) -> None:
    made = draw(base, tmp_path, seed=2**63 - 2, batch_count=2, steps=1)
    assert made.seeds == [2**63 - 2, 2**63 - 1]
    again = run(GenerateConfig.parse({**repeated(Path(made.paths[1]), {}), "out": tmp_path}))
    assert again.seeds == made.seeds[1:] and difference(pixels(again), pixels(made, 1)) == 0
    varied = draw(base, tmp_path, seed=2**63 - 1, variation_seed=1, variation_strength=0.1, batch_size=2, steps=1)
    assert varied.seeds == [2**63 - 1] * 2


def test_sampler_names_in_any_case() -> None:
    assert GenerateConfig(prompt="x", sampler="dpm++ 2m KARRAS").sampler == "DPM++ 2M Karras"
