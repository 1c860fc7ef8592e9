"""Image to image, inpainting, hires fix, variations, batches: settings, files, `--from`, and bad input."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maquette import families
from maquette.adapters.embeddings import Embedding, save
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families.base import BaseModel
from maquette.formats.picture_files import read_parameters
from maquette.formats.png import parse_infotext, write_png
from maquette.sampling.lora_folder import lora_hash
from maquette.sampling.wildcards import chosen
from maquette.stages.generate import GenerateConfig, GenerateResult, run
from maquette.stages.repeat import repeated
from tests.sampling.random_loras import write_lora

PROMPT = "a photo of a cat on a red background"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(small.repeat(8, 0).repeat(8, 1))
    photo.save(folder / "photo.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    mask.save(folder / "mask.png")
    hole = Image.new("L", (64, 64), 255)
    hole.paste(0, (0, 0, 64, 24))
    photo.putalpha(hole)
    photo.save(folder / "hole.png")
    return folder


def draw(base: BaseModel, out: Path, prompt: str = PROMPT, **options: Any) -> GenerateResult:
    return run(GenerateConfig.parse({"prompt": prompt, "out": out, "steps": 2, "seed": 7, **options}), base=base)


def pixels(result: GenerateResult, index: int = 0) -> np.ndarray:
    return np.asarray(result[index]).astype(int)


MODES: dict[str, dict[str, Any]] = {
    "text": {"negative_prompt": "a dog", "sampler": "DPM++ 2M", "clip_skip": 2, "noise_source": "NV", "cfg_scale": 3.5},
    "variation": {"variation_seed": 3, "variation_strength": 0.25, "seed_resize_from": "48x64", "sampler": "Euler a"},
    "hires": {
        "hires_scale": 1.5, "denoising_strength": 0.6, "hires_upscaler": "Lanczos", "hires_steps": 1,
        "hires_sampler": "Euler", "hires_prompt": "a dog, (fluffy:1.2)", "hires_cfg_scale": 2,
    },
    "hires size": {"hires_width": 96, "hires_height": 80, "schedule_type": "Karras", "sampler": "Euler"},
    "image": {"init_image": "photo.png", "denoising_strength": 0.6, "resize_mode": "fill", "width": 80},
    "exact": {"init_image": "photo.png", "exact_steps": True, "sampler": "Euler a", "ensd": 31337, "eta": 0.5},
    "latent": {"init_image": "photo.png", "resize_mode": "latent", "height": 80},
    "mask": {"init_image": "photo.png", "mask": "mask.png", "mask_blur": 0, "masked_content": "latent noise"},
    "inverted": {"init_image": "photo.png", "mask": "mask.png", "mask_invert": True, "masked_content": "fill"},
    "only masked": {"init_image": "photo.png", "mask": "mask.png", "only_masked": True, "mask_padding": 6},
    "transparency": {"init_image": "hole.png", "mask": "transparency", "masked_content": "latent nothing"},
    "extended": {"init_image": "photo.png", "extend": ["left=16", "top=8"], "mask_blur": 1},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_from_makes_every_picture_again(base: BaseModel, photos: Path, tmp_path: Path, mode: str) -> None:
    files = {key: str(photos / name) for key, name in MODES[mode].items() if str(name).endswith(".png")}
    first = draw(base, tmp_path, **{**MODES[mode], **files})
    assert first.warnings == []
    values = repeated(Path(first.paths[0]), {**files, "out": tmp_path})
    again = run(GenerateConfig.parse(values), base=base)
    assert again.infotexts == first.infotexts
    assert Path(again.paths[0]).read_bytes() == Path(first.paths[0]).read_bytes()


def test_from_names_all_that_is_missing(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    made = draw(base, tmp_path, init_image=photos / "photo.png", mask=str(photos / "mask.png"))
    with pytest.raises(MaquetteError, match=r"a picture to begin from \(--init-image FILE\); a mask \(--mask FILE\)"):
        repeated(Path(made.paths[0]), {})
    told: list[Event] = []
    repeated(Path(made.paths[0]), {"init_image": photos / "hole.png", "mask": "m.png"}, told.append)
    assert "hole.png is not the picture that" in told[0].data["message"]
    with pytest.raises(MaquetteError, match=r"photo\.png holds no text that says how it was drawn"):
        repeated(photos / "photo.png", {})


def test_from_says_what_it_cannot_do(tmp_path: Path) -> None:
    text = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Tiling: True, NGMS: 2"
    write_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", text)
    told: list[Event] = []
    repeated(tmp_path / "a.png", {"base": "pocket"}, told.append)
    (message,) = [event.data["message"] for event in told]
    assert message == f"{tmp_path / 'a.png'} was drawn with Tiling: True, NGMS: 2, which maquette has not: left out."


def test_a_mask_beside_an_extension_is_missed(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    given = {"init_image": photos / "photo.png", "mask": str(photos / "mask.png")}
    made = draw(base, tmp_path, extend=["right=8"], **given)
    with pytest.raises(MaquetteError, match=r"was drawn with a mask \(--mask FILE\): name what is missing"):
        repeated(Path(made.paths[0]), {"init_image": given["init_image"]})
    again = run(GenerateConfig.parse(repeated(Path(made.paths[0]), given | {"out": tmp_path})), base=base)
    assert Path(again.paths[0]).read_bytes() == Path(made.paths[0]).read_bytes()


def test_unmasked_pixels_keep_their_bytes(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    photo = np.asarray(Image.open(photos / "photo.png")).astype(int)
    options = {"init_image": photos / "photo.png", "denoising_strength": 1.0, "mask_blur": 2}
    for only in (False, True):
        made = pixels(draw(base, tmp_path, mask=str(photos / "mask.png"), only_masked=only, **options))
        far = np.ones((64, 64), bool)
        far[3:45, 3:45] = False
        assert (made[far] == photo[far]).all()
        assert np.abs(made[12:36, 12:36] - photo[12:36, 12:36]).mean() > 10


def test_masked_content_counts(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    options = {"init_image": photos / "photo.png", "mask": str(photos / "mask.png"), "denoising_strength": 0.6}
    kinds = ("original", "fill", "latent noise", "latent nothing")
    made = [pixels(draw(base, tmp_path, masked_content=kind, **options)).tobytes() for kind in kinds]
    assert len(set(made)) == 4


def test_sizes(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    def size(**options: Any) -> tuple[int, int]:
        return draw(base, tmp_path, steps=1, **options)[0].size

    assert size(hires_scale=2) == (128, 128)
    assert size(hires_width=96) == (96, 96)
    assert size(hires_width=128, hires_height=96) == (128, 96)
    assert size(init_image=photos / "photo.png", width=48, height=80) == (48, 80)
    assert size(init_image=photos / "photo.png", extend=["right=32"]) == (96, 64)
    with pytest.raises(
        MaquetteError, match=r"photo\.png has 69 x 64 pixels once it is extended.* extend it to 72 x 64"
    ):
        size(init_image=photos / "photo.png", extend=["right=5"])


def test_variations(base: BaseModel, tmp_path: Path) -> None:
    plain = pixels(draw(base, tmp_path))
    varied = draw(base, tmp_path, variation_seed=9, variation_strength=0.1, batch_size=2)
    assert varied.seeds == [7, 7]
    told = [parse_infotext(text)["Variation seed"] for text in varied.infotexts]
    assert told == ["9", "10"]
    much = draw(base, tmp_path, variation_seed=9, variation_strength=1.0)
    near, far = np.abs(pixels(varied) - plain).mean(), np.abs(pixels(much) - plain).mean()
    assert 0 < near < far
    assert (pixels(much) == pixels(draw(base, tmp_path, seed=9))).all()


def test_second_prompts_loras(base: BaseModel, tmp_path: Path) -> None:
    """The second drawing has the LoRAs of its own prompt; the first one's are as if there were no second."""
    (tmp_path / "loras").mkdir()
    write_lora(base, tmp_path / "loras" / "robot.safetensors", name="robot")
    options = {"lora_dir": tmp_path / "loras", "hires_scale": 1.5, "hires_steps": 2}
    alone = pixels(draw(base, tmp_path, **options))
    later = pixels(draw(base, tmp_path, hires_prompt=f"{PROMPT}<lora:robot:1>", **options))
    both = pixels(draw(base, tmp_path, f"{PROMPT}<lora:robot:1>", **options))
    assert len({each.tobytes() for each in (alone, later, both)}) == 3
    assert (pixels(draw(base, tmp_path, hires_prompt=PROMPT, **options)) == alone).all()


def test_a_folder_of_pictures(base: BaseModel, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes((photos / "photo.png").read_bytes())
    made = draw(base, tmp_path / "out", init_image=tmp_path / "in", batch_count=2, file_name="[init_image]-[seed]")
    assert [Path(path).name for path in made.paths] == ["a-7.png", "a-8.png", "b-7.png", "b-8.png"]
    assert pixels(made, 0).tobytes() == pixels(made, 2).tobytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaquetteError, match="holds no picture to begin from"):
        draw(base, tmp_path, init_image=tmp_path / "empty")


def test_stopping_keeps_what_is_drawn(base: BaseModel, tmp_path: Path) -> None:
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "saved":
            cancel.set()

    config = GenerateConfig.parse({"prompt": PROMPT, "out": tmp_path, "steps": 1, "seed": 1, "batch_count": 3})
    made = run(config, listen, cancel, base)
    assert [Path(path).name for path in made.paths] == ["00001-1.png"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "avif"])
def test_formats_hold_the_text(base: BaseModel, tmp_path: Path, kind: str) -> None:
    made = draw(base, tmp_path, f"{PROMPT}, é", image_format=kind, **({} if kind == "png" else {"quality": 90}))
    assert made.paths[0].endswith(f"00001-7.{kind}")
    assert read_parameters(made.paths[0]) == made.infotexts[0]
    opened = np.asarray(Image.open(made.paths[0]).convert("RGB")).astype(int)
    assert np.abs(opened - pixels(made)).mean() < 12


def test_hashes_of_textual_inversions(base: BaseModel, tmp_path: Path) -> None:
    vectors = torch.randn(2, base.text_encoders[0].config.hidden_size, generator=torch.Generator().manual_seed(0))
    (tmp_path / "words").mkdir()
    save(Embedding("zkwword", (vectors,), "pocket"), tmp_path / "words" / "zkwword.safetensors", "a1111")
    made = draw(base, tmp_path, "a zkwword", embedding_dir=tmp_path / "words", steps=1)
    short = hashlib.sha256((tmp_path / "words" / "zkwword.safetensors").read_bytes()).hexdigest()[:12]
    assert parse_infotext(made.infotexts[0])["TI hashes"] == f"zkwword: {short}"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "shared").symlink_to(tmp_path / "words", target_is_directory=True)
    linked = draw(base, tmp_path, "a zkwword", embedding_dir=tmp_path / "linked", steps=1)
    assert linked.infotexts == made.infotexts
    assert "TI hashes" not in draw(base, tmp_path, "a cat", embedding_dir=tmp_path / "words", steps=1).infotexts[0]


def test_prompts_of_a_file(base: BaseModel, tmp_path: Path) -> None:
    lines = [
        "a photo of a dog",
        "",
        '--prompt "a photo of a star" --negative_prompt "red" --seed 3 --width 48 --steps 1',
    ]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    made = draw(base, tmp_path, prompts_file=tmp_path / "prompts.txt")
    told = [parse_infotext(text) for text in made.infotexts]
    assert [each["Prompt"] for each in told] == ["a photo of a dog", "a photo of a star"]
    assert [each["Seed"] for each in told] == ["7", "3"]
    assert (told[1]["Negative prompt"], told[1]["Size-1"], told[1]["Steps"]) == ("red", "48", "1")
    (tmp_path / "prompts.txt").write_text("--prompt x --stepps 3")
    with pytest.raises(MaquetteError, match=r"prompts\.txt, line 1: there is no option --stepps"):
        draw(base, tmp_path, prompts_file=tmp_path / "prompts.txt")
    (tmp_path / "prompts.txt").write_text("a dog\n\n--prompt x --width 100")
    with pytest.raises(MaquetteError, match=r"prompts\.txt, line 3: width = 100 is not possible"):
        draw(base, tmp_path / "none", prompts_file=tmp_path / "prompts.txt")
    assert not (tmp_path / "none").exists()  # every line is looked at before the first is drawn


def test_lines_of_a_file_name_schedules_of_their_own(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n--prompt x --scheduler Exponential\n--prompt x --sampler_name Euler")
    options = {"sampler": "DPM++ 2M", "schedule_type": "Karras", "steps": 1}
    made = draw(base, tmp_path, prompts_file=tmp_path / "prompts.txt", **options)
    told = [parse_infotext(text) for text in made.infotexts]
    expected = [("DPM++ 2M", "Karras"), ("DPM++ 2M", "Exponential"), ("Euler", "Karras")]
    assert [(each["Sampler"], each["Schedule type"]) for each in told] == expected


def test_the_second_drawing_has_styles_choices_and_warnings_too(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text('name,prompt,negative_prompt\nNoto,"{prompt}, noto style",blurry\n')
    options = {"styles": ["Noto"], "styles_file": tmp_path / "styles.csv", "steps": 1, "hires_scale": 1.5}
    told = parse_infotext(draw(base, tmp_path, "a cat", hires_prompt="a dog", **options).infotexts[0])
    assert told["Hires prompt"] == "a dog, noto style"
    assert "Hires negative prompt" not in told  # as the first's, with the style's words
    wild = {"steps": 1, "hires_scale": 1.5, "dynamic_prompts": True}
    many = draw(base, tmp_path, "x", hires_prompt="a {cat|dog}", batch_count=6, **wild)
    assert {parse_infotext(text)["Hires prompt"] for text in many.infotexts} == {"a cat", "a dog"}
    missing = {"hires_prompt": "a dog <lora:absent:1> # hm", "lenient": True, "lora_dir": tmp_path}
    warnings = draw(base, tmp_path, steps=1, hires_scale=1.5, **missing).warnings
    assert [text for text in warnings if "'absent'" in text and text.endswith("Drawn without it.")]
    assert [text for text in warnings if text.startswith("'# hm' in the prompt is a comment")]
    assert len(warnings) == 2


def test_hashes_of_loras_of_the_second_drawing(base: BaseModel, tmp_path: Path) -> None:
    for i, name in enumerate(("one", "two")):
        write_lora(base, tmp_path / f"{name}.safetensors", seed=i, name=name)
    prompts = {"prompt": "x <lora:one:1>", "hires_prompt": "x <lora:two:1>"}
    text = draw(base, tmp_path / "out", lora_dir=tmp_path, hires_scale=1.5, steps=1, **prompts).infotexts[0]
    pairs = [pair.split(": ") for pair in parse_infotext(text)["Lora hashes"].split(", ")]
    assert pairs == [[name, lora_hash(tmp_path / f"{name}.safetensors")[:12]] for name in ("one", "two")]


def test_styles_and_wildcards(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text('name,prompt,negative_prompt\nNoto,"{prompt}, noto style",blurry\n')
    (tmp_path / "wild").mkdir()
    (tmp_path / "wild" / "colour.txt").write_text("red\nblue\ngreen\n")
    options = {"styles": ["Noto"], "styles_file": tmp_path / "styles.csv", "steps": 1}
    told = parse_infotext(draw(base, tmp_path, "a cat", **options).infotexts[0])
    assert (told["Prompt"], told["Negative prompt"]) == ("a cat, noto style", "blurry")
    with pytest.raises(MaquetteError, match=r"no style 'Nota' in .*styles\.csv. Did you mean 'Noto'"):
        draw(base, tmp_path, **{**options, "styles": ["Nota"]})
    wild = {"wildcard_dir": tmp_path / "wild", "steps": 1}
    many = draw(base, tmp_path, "a {cat|dog} on __colour__", batch_count=6, **wild)
    prompts = [parse_infotext(text)["Prompt"] for text in many.infotexts]
    assert many.seeds == [7, 8, 9, 10, 11, 12] and len(set(prompts)) > 1
    assert all(prompt.split()[1] in ("cat", "dog") for prompt in prompts)
    single = draw(base, tmp_path, "a {cat|dog} on __colour__", seed=9, **wild)
    assert parse_infotext(single.infotexts[0])["Prompt"] == prompts[2]
    with pytest.raises(MaquetteError, match=r"no wildcard __shape__ in .*wild"):
        draw(base, tmp_path, "a __shape__", **wild)
    with pytest.raises(MaquetteError, match=r"has a \{…\|…\} that cannot be read"):
        draw(base, tmp_path, "a {cat|dog", **wild)
    assert "{a|b}" in draw(base, tmp_path, "x {a|b}", steps=1).infotexts[0]


def test_choices_beside_comments(base: BaseModel, tmp_path: Path) -> None:
    prompt = "c# {cat|cat} # {open __absent__\nred # two"
    made = draw(base, tmp_path, prompt, dynamic_prompts=True, steps=1)
    assert parse_infotext(made.infotexts[0])["Prompt"] == "c\nred"
    assert made.warnings[0].startswith("'# {cat|cat} # {open __absent__' in the prompt is a comment and left out")
    assert "--" not in made.warnings[0]  # programs hear it too
    prompt = "c# {cat|cat} # on {red|red} #"
    told = draw(base, tmp_path, prompt, dynamic_prompts=True, prompt_comments=False, steps=1).infotexts[0]
    assert parse_infotext(told)["Prompt"] == "c# cat # on red #"


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("50% off, $ {a|b}", {"50% off, $ a", "50% off, $ b"}),
        ("{$5|10%}, 100%", {"$5, 100%", "10%, 100%"}),
        ("costs ${5|10}", {"costs $5", "costs $10"}),
        ("{2$$ and 1% of $$$5|$7}", {"$5 and 1% of $7", "$7 and 1% of $5"}),
        ("a$$ {2$$a|$b}$$", {"a$$ a,$b$$", "a$$ $b,a$$"}),
        ("${v={red|$blue}}${v} $v", {"red $v", "$blue $v"}),
        ("%{50% of ... % $$a {x|$}}", {"50% of a x % ", "50% of a $ % "}),
        ("a __price__ $", {"a $5 bill $", "a 100% wool $"}),
    ],
)
def test_choices_beside_dollars_and_percents(tmp_path: Path, prompt: str, choices: set[str]) -> None:
    (tmp_path / "price.txt").write_text("$5 bill\n100% wool\n")
    assert {chosen(prompt, seed, tmp_path) for seed in range(20)} == choices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "large.png"}, r"large\.png is a mask of 32 x 64 pixels and photo\.png has 64 x 64"),
        ({"mask": "absent.png"}, r"absent\.png"),
        ({"init_image": "text.png"}, r"text\.png is not a picture: it holds text"),
        ({"mask": "black.png"}, r"marks no pixel: what shall be painted anew is white \(with mask_invert, black\)"),
        ({"mask": "text.png"}, r"text\.png is not a picture: it holds text"),
        ({"controls": ["pocket-canny,image=text.png"]}, r"text\.png is not a picture: it holds text"),
        ({"controls": ["pocket-canny,image=absent.png"]}, r"absent\.png"),
        ({"hires_base": "pocket"}, "hires_base is the model of a second drawing: give hires_scale"),
        ({"refiner": "absent.safetensors"}, "absent.safetensors does not exist; give the SDXL refiner's file"),
        ({"width": 70}, "width = 70 is not possible"),
        ({"sampler": "Eular"}, "There is no sampler called 'Eular'. Did you mean 'Euler'"),
        ({"hires_scale": 2}, "hires fix enlarges a new picture"),
        ({"hires_scale": 2, "init_image": None, "hires_upscaler": "Lanczoss"}, "no upscaler 'Lanczoss'. Did you mean"),
        ({"only_masked": True}, "only_masked and mask_invert need a mask"),
        (
            {"init_image": None, "hires_prompt": "a dog"},
            "hires_prompt is of a second drawing: give hires_scale or a hires size",
        ),
        ({"init_image": None, "hires_upscaler": "lanczos"}, "hires_upscaler is of a second drawing"),
        ({"init_image": None, "hires_schedule_type": "Karras"}, "hires_schedule_type is of a second drawing"),
        ({"init_image": None, "denoising_strength": 0.5}, "denoising_strength needs init_image or hires fix"),
        ({"init_image": None, "resize_mode": "fill"}, "resize_mode needs a picture to begin from"),
        ({"mask_blur": 8}, "mask_blur needs a mask: give mask or extend"),
        ({"masked_content": "fill"}, "masked_content needs a mask"),
        ({"extend": ["left=8"], "mask_invert": True}, "mask_invert needs a mask: give mask"),
        ({"mask": "mask.png", "mask_padding": 8}, "mask_padding needs only_masked"),
        ({"refiner_switch_at": 0.5}, "refiner_switch_at needs a refiner"),
        ({"extend": ["left=8", "top=8,left=16"]}, "--extend names the side left twice, 8 and 16 pixels"),
        (
            {"controls": ["pocket-canny,image=photo.png,image=mask.png"]},
            "image is given twice, photo.png and mask",
        ),
        ({"controls": ["pocket-canny,canny"]}, "model is given twice, pocket-canny and canny"),
        ({"controls": ["pocket-canny,start=0.6,end=0.5"]}, "it starts after its end and would never guide"),
        ({"controls": ["pocket-canny,preprocessor=tile,a=nan"]}, "a = 'nan' is not possible"),
        ({"controls": ["pocket-canny,preprocessor=blur,a=-5"]}, "a = '-5' is not possible"),
        ({"extend": ["up=8"]}, "--extend up=8 is not possible: write a side and pixels"),
        ({"init_image": None, "mask": "mask.png"}, "mask needs a picture to begin from: give init_image"),
        ({"seed_resize_from": "big"}, "write a size such as 512x512"),
        ({"file_name": "[sead]"}, r"There is no field \[sead\] for names of files"),
        ({"file_name": "../[seed]"}, "leads out of the folder"),
        ({"controls": ["absent.safetensors,image=photo.png"]}, r"absent\.safetensors does not exist"),
        ({"controls": ["c.safetensors,imag=photo.png"]}, "has the unknown key 'imag'; did you mean 'image'"),
        ({"controls": ["c.safetensors,preprocessor=cany"]}, "there is no preprocessor 'cany'; known are none, canny"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    base: BaseModel,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    for name in ("photo.png", "mask.png"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    Image.new("L", (32, 64), 255).save(tmp_path / "large.png")
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("hello")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaquetteError, match=message) as error:
        draw(base, tmp_path / "out", **{"init_image": "photo.png", **options})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
