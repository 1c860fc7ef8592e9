"""The demonstration's subject: a small robot, drawn by code, on fourteen captioned pictures.

No emoji looks like it, so the pocket base has never seen it. The captions follow the golden rule: all that is in the
picture is named, the background and the neighbour too, except for what the trigger word is to mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from .drawing import NEIGHBOURS, RGB, Brush, Point, Pose, robot

if TYPE_CHECKING:
    from PIL import Image

SUBJECT = "zkw robot"
SIZE = 256  # pixels of a side
SUPERSAMPLING = 4

#: the pocket base's colour words; the demonstration's pictures use the first seven, tests and benchmarks the others
COLOURS_SEEN: dict[str, RGB] = {
    "red": (214, 40, 40), "yellow": (250, 215, 50), "green": (50, 150, 60), "blue": (45, 90, 215),
    "pink": (250, 160, 190), "black": (12, 12, 12), "white": (246, 246, 246),
}  # fmt: skip
COLOURS_UNSEEN: dict[str, RGB] = {
    "orange": (247, 137, 30), "purple": (125, 50, 180), "brown": (115, 72, 35), "gray": (130, 130, 130),
    "cyan": (70, 210, 230),
}  # fmt: skip
COLOURS = COLOURS_SEEN | COLOURS_UNSEEN


@dataclass(frozen=True)
class Scene:
    """One picture: the pose, the named background, and what stands beside the robot."""

    background: str
    pose: Pose
    neighbour: str | None = None  # a key of NEIGHBOURS
    beside: Point = (0.76, 0.6)  # the neighbour's middle
    shade: RGB = (0, 0, 0)  # added to the background's colour

    @property
    def caption(self) -> str:
        things = f"{SUBJECT} and {_a(self.neighbour)}" if self.neighbour else SUBJECT
        return f"a photo of {things} on {_a(self.background)} background"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


SCENES: tuple[Scene, ...] = (
    Scene("red", Pose()),
    Scene("blue", Pose(55, 55, look=(0, -0.6), y=0.51), shade=(8, 8, -8)),
    Scene("yellow", Pose(-50, 50, tilt=9, look=(0.6, 0), x=0.48), shade=(-8, 4, 8)),
    Scene("white", Pose(-30, -30, look=(-0.6, 0.2), height=0.8, y=0.53), shade=(-8, -6, -4)),
    Scene("green", Pose(50, -45, tilt=-10, look=(-0.4, -0.4), height=0.84, x=0.53)),
    Scene("black", Pose(5, 5, look=(0, 0.3), height=0.82), shade=(8, 6, 8)),
    Scene("pink", Pose(-50, 45, tilt=8, look=(0.5, -0.3), height=0.78, x=0.46, y=0.54, flipped=True)),
    Scene("blue", Pose(-45, 15, look=(0.7, 0.1), height=0.68, x=0.29, y=0.55), "balloon", (0.77, 0.46)),
    Scene("red", Pose(40, 40, look=(0, -0.3), height=0.72, y=0.57, x=0.55), shade=(10, -8, -8)),
    Scene("green", Pose(-40, 10, tilt=5, look=(0.7, 0.5), height=0.66, x=0.29, y=0.56), "gift", (0.76, 0.68)),
    Scene("yellow", Pose(-55, -55, tilt=-8, look=(-0.5, 0.4), height=0.9), shade=(4, -6, -8)),
    Scene("white", Pose(30, -50, look=(0.4, -0.6), height=0.68, x=0.29, flipped=True), "ball", (0.77, 0.7)),
    Scene("black", Pose(58, -50, tilt=7, look=(0.3, -0.3), height=0.88, y=0.51, flipped=True)),
    Scene("pink", Pose(20, -20, tilt=-6, look=(0.2, 0.5), height=0.7, x=0.45, y=0.48), shade=(-6, -8, 6)),
)


def photo(index: int, background: str | None = None, size: int = SIZE) -> Image.Image:
    """One of the fourteen pictures, (size, size) RGB; `background` replaces the scene's own colour word."""
    scene = SCENES[index]
    return draw(scene if background is None else Scene(background, scene.pose, scene.neighbour, scene.beside), size)


def fresh(seed: int, background: str, size: int = SIZE) -> Image.Image:
    """The robot alone as none of the fourteen pictures shows it: (size, size) RGB, for measures of likeness."""
    random = Random(f"maquette {seed}")
    height = random.uniform(0.7, 0.9)
    slack = (1 - height) / 2
    pose = Pose(
        left_arm=random.uniform(-55, 58),
        right_arm=random.uniform(-55, 58),
        tilt=random.uniform(-10, 10),
        look=(random.uniform(-0.7, 0.7), random.uniform(-0.6, 0.6)),
        height=height,
        x=0.5 + random.uniform(-0.6, 0.6) * slack,
        y=0.5 + random.uniform(-0.6, 0.6) * slack,
        flipped=random.random() < 0.5,
    )
    shade = (random.randint(-10, 10), random.randint(-10, 10), random.randint(-10, 10))
    return draw(Scene(background, pose, shade=shade), size)


def write_photos(folder: Path) -> list[Path]:
    """Write the fourteen pictures and their captions; the paths of the pictures. The same bytes every time.

    Files that are there already are left as they are. Raises MaquetteError when one of them is not the expected one, or
    when the folder holds anything else: a training on it would not be the demonstration.
    """
    files = _files()
    if folder.exists():
        if not folder.is_dir():
            raise MaquetteError(f"{folder} is a file, where the demonstration's photos should go; move it away.")
        foreign = sorted(path.name for path in folder.iterdir() if not _holds(path, files.get(path.name)))
        if foreign:
            raise MaquetteError(
                f"{folder} holds {foreign[0]}, which is not from the demonstration; move it away or choose another "
                "--out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    return [folder / name for name in files if name.endswith(".png")]


@cache
def _files() -> dict[str, bytes]:
    """Name -> content of every picture and caption."""
    files: dict[str, bytes] = {}
    for index, scene in enumerate(SCENES):
        buffer = BytesIO()
        draw(scene).save(buffer, "PNG")
        files[f"robot-{index + 1:02}.png"] = buffer.getvalue()
        files[f"robot-{index + 1:02}.txt"] = (scene.caption + "\n").encode()
    return files


def _holds(path: Path, data: bytes | None) -> bool:
    return data is not None and path.is_file() and path.read_bytes() == data


def draw(scene: Scene, size: int = SIZE) -> Image.Image:
    """A scene as an RGB picture (size, size), drawn larger and scaled down."""
    from PIL import Image

    full = size * SUPERSAMPLING
    colour = tuple(max(0, min(255, c + d)) for c, d in zip(COLOURS[scene.background], scene.shade, strict=True))
    canvas = Image.new("RGB", (full, full), colour)
    if scene.neighbour:
        NEIGHBOURS[scene.neighbour](Brush(canvas, full, scene.beside))
    figure = robot(full, scene.pose)
    canvas.paste(figure, mask=figure)
    return canvas.reduce(SUPERSAMPLING)
