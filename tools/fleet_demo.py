"""`make fleet-demo`: eight subjects drawn by code, trained by two workers, and the report opened.

    python -m tools.fleet_demo --out runs/fleet-demo [--address auto] [--no-browser]

The subjects are the demonstration's robot in eight colours. Run again it finds everything done.
"""

from __future__ import annotations

import argparse
import json
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from maquette import fleet
from maquette.cli.fleet import show_plan, show_run, show_status
from maquette.demo.drawing import Pose, robot
from maquette.demo.mascot import COLOURS_SEEN, SIZE

if TYPE_CHECKING:
    from PIL import Image

SUBJECTS, PHOTOS, STEPS = 8, 6, 60
POSES = (
    Pose(), Pose(55, 55, look=(0, -0.6), y=0.51), Pose(-50, 50, tilt=9, look=(0.6, 0), x=0.48),
    Pose(50, -45, tilt=-10, look=(-0.4, -0.4), height=0.84, x=0.53), Pose(5, 5, look=(0, 0.3), height=0.82),
    Pose(-55, -55, tilt=-8, look=(-0.5, 0.4), height=0.9),
)  # fmt: skip


def turned(figure: Image.Image, part: float) -> Image.Image:
    """A picture (RGBA) whose colours are turned by a part of the colour circle."""
    from PIL import Image

    hue, saturation, value = figure.convert("RGB").convert("HSV").split()
    turn = round(256 * part)
    colours = Image.merge("HSV", (hue.point([(shade + turn) % 256 for shade in range(256)]), saturation, value))
    turned_figure = colours.convert("RGB")
    turned_figure.putalpha(figure.getchannel("A"))
    return turned_figure


def draw_subject(folder: Path, number: int) -> None:
    """Photos of one robot with their captions."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for index, (pose, (word, colour)) in enumerate(zip(POSES[:PHOTOS], COLOURS_SEEN.items(), strict=False)):
        canvas = Image.new("RGB", (SIZE, SIZE), colour)
        figure = turned(robot(SIZE, pose), number / SUBJECTS)
        canvas.paste(figure, mask=figure)
        canvas.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a photo of zkw robot on a {word} background\n")


def write_jobs(out: Path, subjects: int, steps: int) -> Path:
    """Photos, the file of jobs, the pack of prompts and the prices."""
    for number in range(subjects):
        draw_subject(out / "photos" / f"robot-{number}", number)
    (out / "pack.toml").write_text('prompts = ["a photo of {subject} on an orange background"]\nsteps = 20\nseed = 1\n')
    (out / "fleet.toml").write_text("seconds_per_job = 60\n[prices]\ncpu = 0.05\n")
    jobs = out / "jobs.jsonl"
    rows = [
        {
            "id": f"robot-{number}", "photos": f"photos/robot-{number}", "subject": "zkw robot", "method": "locon",
            "learning_rate": 3e-3, "steps": steps, "sample_prompts": [], "choose": False,
            "then": ["generate:pack.toml"],
        }
        for number in range(subjects)
    ]  # fmt: skip
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return jobs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/fleet-demo"))
    parser.add_argument("--address", default="local")
    parser.add_argument("--subjects", type=int, default=SUBJECTS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--no-browser", action="store_true")
    given = parser.parse_args(arguments)
    jobs = write_jobs(given.out, given.subjects, given.steps)
    root, prices = str(given.out / "results"), given.out / "fleet.toml"
    show_plan(fleet.plan(jobs=jobs, root=root, settings=prices, workers=2))
    show_run(fleet.run(jobs=jobs, root=root, settings=prices, workers=2, address=given.address))
    found = fleet.report(root=root, out=given.out / "report.html")
    show_status(found)
    print(f"Report: {found.report}")
    if not given.no_browser:
        webbrowser.open((given.out / "report.html").absolute().as_uri())


if __name__ == "__main__":
    main()
