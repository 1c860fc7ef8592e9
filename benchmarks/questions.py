"""The figures of docs/questions.md: comparisons on the demo's photos, on sprites, or on other photos.

python -m benchmarks.questions OUT [--steps 160] [--only dreambooth,captions,methods,images,bases] [--photos DIR]
python -m benchmarks.questions OUT --sprites FOLDER [--choice out/choice] [--steps 80] [--only dreambooth,bases]
python -m benchmarks.questions OUT --sprites FOLDER --subjects 6 --only bases --results PART   # others beside it

Each comparison is one `maquette compare`, which goes on where it was killed. Prints a Markdown table and the answers of
each, and keeps both in benchmarks/results/questions.json. The restyled base of "bases" is made here: the built-in base,
fine-tuned as a whole on its own pictures of ordinary things, turned into a style that it does not draw. With --sprites
each is made on three subjects of benchmarks/checkpoint_choice.py, one in each style, with 14 captioned photos. Several
calls, for other --subjects or --only and each with --results of its own, may work in one OUT at once; the call for all
of them then only puts together what is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter, ImageOps

import maquette
from benchmarks.checkpoint_choice import cast
from benchmarks.choice import plan
from benchmarks.choice.drawing import sprites_at
from benchmarks.choice.subjects import Subject
from benchmarks.choice.together import in_turn
from benchmarks.choice.training import write_photos as write_sprite_photos
from maquette.demo.mascot import SUBJECT, write_photos
from maquette.evaluation.words import POCKET_COLOURS, POCKET_OTHERS, article
from maquette.events import Event
from maquette.report.compare_page import table_heads, table_row

RESULTS = Path(__file__).parent / "results" / "questions.json"
STYLED = 40  # pictures that the restyled base learns from
SPRITES = (2, 6, 8)  # of the subjects of benchmarks/checkpoint_choice.py, one in each style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--only", default="dreambooth,captions,methods,images,bases")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--photos", type=Path, help="other photos than the demo's, with --subject")
    parser.add_argument("--subject", default=SUBJECT)
    parser.add_argument("--sprites", type=Path, help="a folder of sprites, as benchmarks.checkpoint_choice takes it")
    parser.add_argument("--subjects", type=numbers, default=SPRITES, help="of that benchmark's, with commas")
    parser.add_argument("--choice", type=Path, default=Path("out/choice"), help="that benchmark's work folder")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.sprites:
        people = of_the_choice(arguments.choice, arguments.sprites, arguments.subjects)
        for subject in people:
            out = arguments.out / subject.name
            with in_turn(arguments.out / "photos.lock"):
                if not (out / "photos").exists():
                    write_sprite_photos(out / "photos", subject, "captioned")
            for name in arguments.only.split(","):
                ask(name, out / "photos", subject.prompt, out, arguments, f"{name}, {subject.name}")
        for name in arguments.only.split(",") if len(people) > 1 else ():
            side_by_side(
                [arguments.out / subject.name for subject in people], name, arguments.out / f"{name}-sprites.png"
            )
        return
    photos = arguments.photos or arguments.out / "photos"
    if not photos.exists():
        write_photos(photos)
    for name in arguments.only.split(","):
        ask(name, photos, arguments.subject, arguments.out, arguments, name)


def ask(name: str, photos: Path, subject: str, out: Path, arguments: argparse.Namespace, title: str) -> None:
    """One comparison, printed and kept."""
    options = question(name, out, subject, restyled_in=arguments.out)
    result = maquette.compare(
        photos,
        told,
        subject=subject,
        steps=arguments.steps,
        checkpoints=2,
        jobs=arguments.jobs,
        out=out / name,
        **options,
    )
    trainings = [one for one in result.to_json()["trainings"]]
    found = {"options": options, "answers": result.answers, "trainings": trainings}
    keep(arguments.results, title, found, arguments.out)
    print(f"\n## {title}\n\n{table(trainings)}\n")
    print("\n".join(result.answers), flush=True)


def side_by_side(folders: list[Path], name: str, target: Path) -> None:
    """Of every subject one of its photos and below it the comparison's pictures, one subject beside the next."""
    columns = []
    for folder in folders:
        with Image.open(folder / name / "pictures.png") as sheet, Image.open(folder / "photos/00.png") as photo:
            column = Image.new("RGB", (sheet.width, sheet.height + 140), "white")
            column.paste(photo.resize((128, 128), Image.Resampling.NEAREST), (sheet.width - 200, 6))
            column.paste(sheet.convert("RGB"), (0, 140))
        columns.append(column)
    whole = Image.new("RGB", (sum(c.width for c in columns), max(c.height for c in columns)), "white")
    left = 0
    for column in columns:
        whole.paste(column, (left, 0))
        left += column.width
    whole.save(target)


def of_the_choice(work: Path, sprites: Path, which: Sequence[int]) -> list[Subject]:
    """These subjects of the benchmark of the choice."""
    work.mkdir(parents=True, exist_ok=True)
    people = cast(work, sprites_at(sprites), plan.SUBJECTS)
    return [people[number] for number in which]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def question(name: str, out: Path, subject: str, restyled_in: Path) -> dict[str, Any]:
    """What is compared."""
    if (
        name == "captions"
    ):  # DreamBooth's manner: one sentence for all, the class held; fine-tuning's: captions, no prior
        return {"settings": ["caption_extension=.txt,.none", "prior_preservation=true,false"]}
    if name == "dreambooth":
        return {"methods": ["lora,dreambooth"]}
    if name == "methods":
        return {"methods": ["lora,dreambooth,lokr,textual-inversion"]}
    if name == "images":
        folders = [regularization(out, count, subject) for count in (14, 56)]
        return {"settings": [f"reg={','.join(map(str, folders))}"]}
    if name == "bases":
        with in_turn(restyled_in / "restyled.lock"):
            return {"bases": ["pocket", str(restyled(restyled_in))]}
    raise SystemExit(f"There is no question {name}.")


def regularization(out: Path, count: int, subject: str) -> Path:
    """So many pictures of the class, drawn by the base."""
    folder = out / f"class-{count}"
    if not folder.exists():
        maquette.regularize(folder, prompt=[f"a photo of a {subject.split()[-1]}"], count=count)
    return folder


def restyled(out: Path) -> Path:
    """The built-in base after it learned pictures with a strong style of their own: edges on a washed-out ground."""
    run = out / "restyled"
    photos = out / "restyled-photos"
    if not photos.exists():
        photos.mkdir(parents=True)
        for i in range(STYLED):
            thing, colour = POCKET_OTHERS[i % len(POCKET_OTHERS)], POCKET_COLOURS[i % len(POCKET_COLOURS)]
            caption = f"a photo of {article(thing)} on {article(colour)} background"
            drawn = maquette.generate(caption, seed=i, steps=15, out=out / "drawn")[0]
            style(drawn).save(photos / f"{i:02}.png")
            (photos / f"{i:02}.txt").write_text(caption)
    if not (run / "restyled.safetensors").exists():
        maquette.train(
            photos, told, subject="photo", method="dreambooth", steps=120, out=run, choose=False,
            caption_extension=".txt", sample_prompts=[], save_every_steps=120,
        )  # fmt: skip
    return run / "restyled.safetensors"


def style(image: Image.Image) -> Image.Image:
    """Four tones of each colour, washed out, with dark edges."""
    flat = ImageOps.posterize(image.convert("RGB"), 2)
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 if v > 60 else 0)
    washed = Image.blend(flat, Image.new("RGB", image.size, (235, 225, 205)), 0.4)
    washed.paste((40, 30, 60), mask=edges)
    return washed


def told(event: Event) -> None:
    if event.kind in ("warning", "finding"):
        print(event.data["message"], flush=True)
    if event.kind == "progress" and event.data["what"].startswith(("training", "measuring")):
        print(event.data["what"], event.data["done"], event.data["of"], flush=True)


def table(trainings: list[dict[str, Any]]) -> str:
    heads = ["", *table_heads()]
    lines = [
        [one["name"] if one["used"] == one["base"] else f"{one['name']} on {Path(one['used']).stem}", *table_row(one)]
        for one in trainings
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def keep(file: Path, name: str, told: dict[str, Any], out: Path) -> None:
    """Under its name, without the machine's own paths."""
    every = json.loads(file.read_text()) if file.exists() else {}
    for one in told["trainings"]:
        for key in ("file", "pictures"):
            del one[key]
    text = json.dumps({**every, name: told}, indent=1)
    file.write_text(text.replace(str(out), "OUT") + "\n")


if __name__ == "__main__":
    main()
