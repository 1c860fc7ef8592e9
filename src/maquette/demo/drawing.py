"""Drawing by code for the demonstration's pictures: the robot and what can stand beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

RGB = tuple[int, int, int]
Point = tuple[float, float]

INK: RGB = (22, 32, 56)
TEAL: RGB = (20, 164, 154)
TEAL_LIGHT: RGB = (104, 222, 206)
TEAL_DARK: RGB = (10, 116, 116)
CREAM: RGB = (255, 242, 212)
ORANGE: RGB = (255, 132, 16)
ORANGE_LIGHT: RGB = (255, 206, 104)

LINE = 0.022  # thickness of the ink line, in heights of the robot


@dataclass(frozen=True)
class Pose:
    """How the robot stands. Angles in degrees: an arm hangs at -60, points sideways at 0 and up at 60."""

    left_arm: float = -50
    right_arm: float = -50
    tilt: float = 0  # of the head, clockwise
    look: Point = (0, 0)  # where the eye turns, each in [-1, 1]
    height: float = 0.86  # of the robot, as a share of the picture's
    x: float = 0.5  # of its middle, as a share of the picture's width
    y: float = 0.5
    flipped: bool = False


class Brush:
    """Outlined shapes on a picture; coordinates are lengths of `unit` pixels from an origin."""

    def __init__(self, image: Image.Image, unit: float, origin: Point) -> None:
        from PIL import ImageDraw

        self._draw = ImageDraw.Draw(image)
        self._unit = unit
        self._origin = (origin[0] * image.width, origin[1] * image.height)

    def _place(self, points: list[Point]) -> list[Point]:
        (x0, y0), u = self._origin, self._unit
        return [(x0 + x * u, y0 + y * u) for x, y in points]

    def _box(self, x: float, y: float, rx: float, ry: float) -> list[Point]:
        return self._place([(x - rx, y - ry), (x + rx, y + ry)])

    def disc(self, x: float, y: float, rx: float, ry: float, fill: RGB, line: float = LINE) -> None:
        """Ellipse around (x, y); the line lies outside of it."""
        if line:
            self._draw.ellipse(self._box(x, y, rx + line, ry + line), fill=INK)
        self._draw.ellipse(self._box(x, y, rx, ry), fill=fill)

    def block(self, x: float, y: float, rx: float, ry: float, radius: float, fill: RGB, line: float = LINE) -> None:
        """Rectangle with round corners around (x, y)."""
        u = self._unit
        if line:
            self._draw.rounded_rectangle(self._box(x, y, rx + line, ry + line), (radius + line) * u, fill=INK)
        self._draw.rounded_rectangle(self._box(x, y, rx, ry), radius * u, fill=fill)

    def rod(self, start: Point, end: Point, width: float, fill: RGB, line: float = LINE) -> None:
        """Thick line with round ends."""
        for extra, colour in ((line, INK), (0.0, fill)):
            half = width / 2 + extra
            self._draw.line(self._place([start, end]), fill=colour, width=round(2 * half * self._unit))
            for x, y in (start, end):
                self._draw.ellipse(self._box(x, y, half, half), fill=colour)

    def shape(self, points: list[Point], fill: RGB, line: float = LINE) -> None:
        """Polygon."""
        placed = self._place(points)
        if line:
            self._draw.line([*placed, *placed[:2]], fill=INK, width=round(2 * line * self._unit), joint="curve")
        self._draw.polygon(placed, fill=fill)

    def smile(self, x: float, y: float, rx: float, ry: float, width: float) -> None:
        """Lower half of an ellipse."""
        self._draw.arc(self._box(x, y, rx, ry), 20, 160, fill=INK, width=round(width * self._unit))


def robot(size: int, pose: Pose) -> Image.Image:
    """The robot on a transparent picture (size, size) RGBA."""
    from PIL import Image

    unit, middle = size * pose.height, (1 - pose.x if pose.flipped else pose.x, pose.y)
    picture = Image.new("RGBA", (size, size), (*INK, 0))
    _limbs(Brush(picture, unit, middle), pose)
    _body(Brush(picture, unit, middle))
    head = Image.new("RGBA", (size, size), (*INK, 0))
    _head(Brush(head, unit, middle), pose.look)
    if pose.tilt:
        neck = (size * middle[0], size * middle[1] + 0.1 * unit)
        head = head.rotate(-pose.tilt, Image.Resampling.BILINEAR, center=neck)
    picture.alpha_composite(head)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if pose.flipped else picture


def _limbs(brush: Brush, pose: Pose) -> None:
    for side, angle in ((-1, pose.left_arm), (1, pose.right_arm)):
        shoulder = (side * 0.19, 0.19)
        elbow = _reach(shoulder, side, 0.14 + max(0, angle) / 1100, angle if angle < 0 else angle / 4)
        hand = _reach(elbow, side, 0.04 if angle < 0 else 0.04 + angle / 400, angle * 1.3)
        brush.rod(shoulder, elbow, 0.06, TEAL_DARK)
        brush.rod(elbow, hand, 0.06, TEAL_DARK)
        brush.rod(shoulder, elbow, 0.06, TEAL_DARK, line=0)
        brush.disc(*hand, 0.056, 0.056, ORANGE)
    for side in (-1, 1):
        brush.rod((side * 0.1, 0.36), (side * 0.1, 0.42), 0.085, TEAL_DARK)
        brush.block(side * 0.115, 0.445, 0.085, 0.034, 0.03, ORANGE)


def _reach(start: Point, side: int, length: float, angle: float) -> Point:
    """The end of a limb; the angle in degrees, upwards from pointing away from the body."""
    radians = math.radians(angle)
    return start[0] + side * length * math.cos(radians), start[1] - length * math.sin(radians)


def _body(brush: Brush) -> None:
    brush.block(0, 0.235, 0.185, 0.135, 0.06, CREAM)
    for y in (0.2, 0.3):
        brush.block(0, y, 0.185, 0.026, 0, TEAL, line=0)


def _head(brush: Brush, look: Point) -> None:
    brush.rod((0.0, -0.3), (0.045, -0.39), 0.012, INK)
    brush.disc(0.055, -0.425, 0.05, 0.05, ORANGE)
    brush.disc(0.04, -0.44, 0.016, 0.016, ORANGE_LIGHT, line=0)
    for side in (-1, 1):
        brush.block(side * 0.315, -0.11, 0.035, 0.075, 0.02, ORANGE)
    brush.block(0, -0.1, 0.285, 0.2, 0.085, TEAL_DARK)
    brush.block(0, -0.113, 0.285, 0.187, 0.085, TEAL, line=0)
    brush.block(-0.02, -0.262, 0.19, 0.014, 0.014, TEAL_LIGHT, line=0)
    x, y = 0.0, -0.125
    brush.disc(x, y, 0.135, 0.135, CREAM)
    x, y = x + 0.05 * look[0], y + 0.05 * look[1]
    brush.disc(x, y, 0.082, 0.082, ORANGE, line=0)
    brush.disc(x, y, 0.046, 0.046, INK, line=0)
    brush.disc(x + 0.03, y - 0.032, 0.022, 0.022, (255, 255, 255), line=0)
    brush.smile(0, 0.03, 0.07, 0.035, 0.02)


def _ball(brush: Brush) -> None:
    brush.disc(0, 0, 0.17, 0.17, (236, 62, 74), line=0.018)
    brush.disc(0, 0, 0.115, 0.17, (255, 255, 255), line=0)
    brush.disc(0, 0, 0.05, 0.17, (255, 205, 60), line=0)
    brush.disc(0, -0.155, 0.03, 0.018, (255, 255, 255), line=0.01)


def _gift(brush: Brush) -> None:
    violet, gold = (140, 72, 200), (255, 214, 70)
    brush.block(0, 0.05, 0.16, 0.13, 0.015, violet, line=0.018)
    brush.block(0, 0.05, 0.032, 0.13, 0, gold, line=0)
    for side in (-1, 1):
        brush.shape([(0, -0.13), (side * 0.11, -0.21), (side * 0.12, -0.12)], gold, line=0.014)
    brush.block(0, -0.09, 0.185, 0.04, 0.015, violet, line=0.018)
    brush.block(0, -0.09, 0.032, 0.04, 0, gold, line=0)


def _balloon(brush: Brush) -> None:
    brush.rod((0, 0.14), (-0.02, 0.42), 0.012, INK, line=0)
    brush.shape([(-0.035, 0.17), (0, 0.12), (0.035, 0.17)], (255, 208, 66), line=0.014)
    brush.disc(0, -0.05, 0.165, 0.195, (255, 208, 66), line=0.018)
    brush.disc(-0.06, -0.13, 0.032, 0.05, (255, 240, 190), line=0)


#: what can stand beside the robot: word in captions -> how it is drawn
NEIGHBOURS: dict[str, Callable[[Brush], None]] = {"ball": _ball, "gift": _gift, "balloon": _balloon}
