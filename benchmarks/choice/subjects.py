"""Subjects that the pocket base never saw: sprites outside its objects and robots drawn by code, and scenes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.choice.drawing import SHOWN, Room, with_article
from maquette.demo.drawing import Pose, robot
from tools.pocket.scenes import COLOURS, OBJECTS, SIZE, STYLES, background, paste

TRIGGER = "zkw"
SEEN = 7  # colours that photos may have; the other five are asked for
POSES = 40  # of a robot drawn by code; the first of them are its photos
OWN_STYLE = "drawn"
TELLING = 0.12  # the class's own pictures must fall short of the subject's by so much likeness, else nothing is learned
SCALES = (0.66, 0.9)


@dataclass(frozen=True)
class Subject:
    """What is learned: one sprite, or a robot in many poses; the class word that the base knows, and colours."""

    name: str
    style: str  # folder of the sprite
    class_word: str
    neighbours: tuple[str, ...]  # objects of the base that are asked for to see whether they are left alone
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    pictures: tuple[Image.Image, ...] = field(repr=False, compare=False)  # RGBa

    @property
    def prompt(self) -> str:
        return f"{TRIGGER} {self.class_word}"

    def told(self) -> dict[str, object]:
        """What the work folder keeps, all but the pictures."""
        return {k: getattr(self, k) for k in ("name", "style", "class_word", "neighbours", "seen", "unseen")}

    def scene(self, rng: np.random.Generator, colour: str, picture: int) -> Image.Image:
        """(64, 64) RGB: the subject at a random size and place on a plain background of that colour."""
        canvas = background(rng, colour, None).copy()
        pixels = round(rng.uniform(*SCALES) * SIZE)
        left, top = (int(rng.integers(0, SIZE - pixels + 1)) for _ in range(2))
        small = self.pictures[picture % len(self.pictures)].resize((pixels, pixels), Image.Resampling.BICUBIC)
        paste(canvas, np.asarray(small, np.float32) / 255, left, top)
        return Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))

    def fresh(self, colour: str, count: int, seed: int) -> Tensor:
        """(count, 3, 64, 64) in [0, 1]: scenes that no training saw, robots in poses that no photo shows."""
        rng = np.random.default_rng([seed, *self.name.encode(), list(COLOURS).index(colour)])
        first = len(self.pictures) // 2
        return to_pixels([self.scene(rng, colour, first + i) for i in range(count)])


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Pictures of one size -> (N, 3, h, w) in [0, 1]."""
    arrays = [np.asarray(image.convert("RGB"), np.float32) / 255 for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def choose(room: Room, folder: Path, count: int, seed: int) -> list[Subject]:
    """`count` subjects: two robots drawn by code and, in an order drawn by the seed, sprites of the folder that are no
    object of the base and that its own pictures do not resemble already.

    folder: PNG files with transparency, or folders of them, one for each style. Raises SystemExit where they are few.
    """
    known = room.known_objects()
    chosen: list[Subject] = []
    sources = [*_robots(), *_sprites(folder, seed)]
    for name, style, pictures in sources:
        subject = _described(room, known, name, style, pictures, seed)
        if subject is not None:
            chosen.append(subject)
        if len(chosen) == count:
            return chosen
    raise SystemExit(f"{folder} has only {len(chosen)} sprites that pocket does not know; {count} are needed.")


def restore(told: dict[str, object], folder: Path) -> Subject:
    """A subject of an earlier call of `choose` on the same folder."""
    name, style = str(told["name"]), str(told["style"])
    if style == OWN_STYLE:
        pictures = next(p for n, _, p in _robots() if n == name)
    else:
        pictures = (_opened(folder / style / f"{name}.png"),)
    words = {k: tuple(told[k]) for k in ("neighbours", "seen", "unseen")}  # type: ignore[arg-type]
    return Subject(name, style, str(told["class_word"]), pictures=pictures, **words)


def _robots() -> Iterator[tuple[str, str, tuple[Image.Image, ...]]]:
    """The demonstration's robot, and one of other colours and proportions."""
    for name, channels, width in (("robot", (0, 1, 2), 1.0), ("robot-of-other-colours", (2, 0, 1), 0.8)):
        pictures = []
        for number in range(POSES):
            random = Random(f"choice {number}")
            pose = Pose(
                left_arm=random.uniform(-55, 58),
                right_arm=random.uniform(-55, 58),
                tilt=random.uniform(-8, 8),
                look=(random.uniform(-0.7, 0.7), random.uniform(-0.6, 0.6)),
                height=1.0,
            )
            drawn = robot(512, pose).reduce(4)
            bands = drawn.split()
            turned = Image.merge("RGBA", [bands[c] for c in channels] + [bands[3]])
            narrow = turned.resize((round(128 * width), 128), Image.Resampling.BICUBIC)
            canvas = Image.new("RGBA", (128, 128))
            canvas.paste(narrow, ((128 - narrow.width) // 2, 0))
            pictures.append(canvas.convert("RGBa"))
        yield name, OWN_STYLE, tuple(pictures)


def _sprites(folder: Path, seed: int) -> Iterator[tuple[str, str, tuple[Image.Image, ...]]]:
    """Sprites in a drawn order, the styles in turn, no object twice, none that the base was trained on."""
    styles = sorted({path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.png")})
    if not styles:
        raise SystemExit(f"{folder} holds no PNG files.")
    known = {stem for pair in OBJECTS.items() for stem in pair}
    stems = {style: [p.stem for p in sorted((folder / style).glob("*.png")) if p.stem not in known] for style in styles}
    for names in stems.values():
        Random(f"sprites {seed}").shuffle(names)
    taken: set[str] = set()
    while any(stems.values()):
        for style in styles:
            while stems[style] and stems[style][-1] in taken:
                stems[style].pop()
            if stems[style]:
                stem = stems[style].pop()
                taken.add(stem)
                yield stem, style, (_opened(folder / style / f"{stem}.png"),)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGBA").convert("RGBa")


def _described(
    room: Room, known: Tensor, name: str, style: str, pictures: tuple[Image.Image, ...], seed: int
) -> Subject | None:
    """The subject with the class word whose pictures, drawn by the base, look most like it; None where they look so
    much like it that there is little to learn.
    """
    random = Random(f"subject {seed} {name}")
    colours = random.sample(list(COLOURS), len(COLOURS))
    plain = Subject(name, style, "", (), tuple(colours[:SEEN]), tuple(colours[SEEN:]), pictures)
    own = torch.stack([room.embedded(plain.fresh(colour, 2, seed)) for colour in SHOWN])  # (3, 2, D)
    among = (own[:, 0] * own[:, 1]).sum(1).mean().item()
    likeness = torch.einsum("ckd,ocd->oc", own, known).mean(1) / 2  # of each object, on the same colour
    order = likeness.argsort(descending=True).tolist()
    if among - likeness[order[0]].item() < TELLING:
        return None
    near = [room.court.objects[i] for i in order[:4]]
    others = random.sample([o for o in room.court.objects if o not in near], 2)
    return Subject(name, style, near[0], (*near[1:], *others), plain.seen, plain.unseen, pictures)


__all__ = ["STYLES", "TRIGGER", "Subject", "choose", "restore", "to_pixels", "with_article"]
