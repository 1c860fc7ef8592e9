"""Captioned scenes composed from transparent sprites: object, style, size, named background colour, pattern, sometimes two objects.

Scale and position vary only as much as the demonstrations need: every further degree of freedom costs training time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64  # pixels of a side

#: sprite folder -> words of the style in a caption
STYLES = {"noto": "noto style", "fluent-3d": "3d style", "fluent-flat": "flat style"}

COLOURS = {
    "red": (214, 40, 40), "orange": (247, 137, 30), "yellow": (250, 215, 50), "green": (50, 150, 60),
    "blue": (45, 90, 215), "purple": (125, 50, 180), "pink": (250, 160, 190), "brown": (115, 72, 35),
    "black": (12, 12, 12), "white": (246, 246, 246), "gray": (130, 130, 130), "cyan": (70, 210, 230),
}  # fmt: skip

#: word in captions -> sprite file name without its ending (the same in every style folder)
OBJECTS = {
    "dog": "dog_face", "cat": "cat_face", "lion": "lion", "tiger": "tiger_face", "rabbit": "rabbit_face", "bear": "bear",
    "koala": "koala", "monkey": "monkey_face", "pig": "pig_face", "frog": "frog", "cow": "cow_face", "penguin": "penguin",
    "chick": "front_facing_baby_chick", "duck": "duck", "whale": "spouting_whale", "octopus": "octopus", "turtle": "turtle",
    "butterfly": "butterfly", "bee": "honeybee", "ladybug": "lady_beetle", "rose": "rose", "sunflower": "sunflower",
    "tulip": "tulip", "palm tree": "palm_tree", "christmas tree": "christmas_tree", "maple leaf": "maple_leaf",
    "clover": "four_leaf_clover", "watermelon": "watermelon", "banana": "banana", "apple": "red_apple", "lemon": "lemon",
    "strawberry": "strawberry", "cherries": "cherries", "grapes": "grapes", "carrot": "carrot", "corn": "ear_of_corn",
    "broccoli": "broccoli", "hamburger": "hamburger", "pizza": "pizza", "doughnut": "doughnut", "ice cream": "soft_ice_cream",
    "birthday cake": "birthday_cake", "soccer ball": "soccer_ball", "basketball": "basketball", "balloon": "balloon",
    "sunglasses": "sunglasses", "t shirt": "t_shirt", "backpack": "backpack", "crown": "crown", "bell": "bell",
    "candle": "candle", "key": "key", "umbrella": "umbrella", "drum": "drum", "camera": "camera", "light bulb": "light_bulb",
    "gift": "wrapped_gift", "house": "house", "car": "automobile", "sailboat": "sailboat", "snowman": "snowman",
    "star": "star", "sun": "sun", "fire": "fire",
}  # fmt: skip

#: the objects the UNet is trained on; leave some out where the time is too short to draw all of them well
DRAWN = tuple(OBJECTS)

PATTERNS = ("gradient", "striped", "checkered", "dotted")


@dataclass
class Sprites:
    """Premultiplied RGBA sprites, float32 (128, 128, 4): `of[(style folder, file stem)]`."""

    of: dict[tuple[str, str], Image.Image] = field(default_factory=dict)
    _scaled: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path) -> Sprites:
        sprites = Sprites()
        for style in STYLES:
            for path in sorted((folder / style).glob("*.png")):
                sprites.of[style, path.stem] = Image.open(path).convert("RGBa")
        missing = [(s, stem) for s in STYLES for stem in OBJECTS.values() if (s, stem) not in sprites.of]
        if missing:
            raise SystemExit(f"{folder}: sprites missing: {missing}")
        return sprites

    def at(self, style: str, stem: str, pixels: int) -> np.ndarray:
        """One sprite at a size: premultiplied float32 (pixels, pixels, 4) in [0, 1]; the resized ones are kept."""
        key = (style, stem, pixels)
        if key not in self._scaled:
            small = self.of[style, stem].resize((pixels, pixels), Image.Resampling.BICUBIC)
            self._scaled[key] = np.asarray(small, np.float32) / 255
        return self._scaled[key]


@dataclass(frozen=True)
class Scene:
    pixels: np.ndarray  # (64, 64, 3) uint8
    caption: str
    object: int  # index into OBJECTS of the (first) object, -1 for others
    style: int  # index into STYLES
    colour: int  # index into COLOURS
    single: bool  # one object only


def background(rng: np.random.Generator, colour: str, pattern: str | None) -> np.ndarray:
    """(64, 64, 3) float32 in [0, 1]; the pattern's second shade is a darker or lighter version of the colour."""
    base = np.array(COLOURS[colour], np.float32) + rng.uniform(-14, 14, 3)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    shade = base * 0.6 if base.mean() > 90 else base + 70
    if pattern is None:
        return np.broadcast_to(np.clip(base, 0, 255) / 255, (SIZE, SIZE, 3)).astype(np.float32)
    if pattern == "gradient":
        mix = y / (SIZE - 1)
    elif pattern == "striped":
        mix = ((x if rng.random() < 0.5 else y) // 8 % 2).astype(np.float32)
    elif pattern == "checkered":
        mix = ((x // 16 + y // 16) % 2).astype(np.float32)
    else:
        mix = (((x % 16 - 8) ** 2 + (y % 16 - 8) ** 2) < 16).astype(np.float32)
    picture = base + (shade - base) * mix[..., None] * 0.8
    return (np.clip(picture, 0, 255) / 255).astype(np.float32)


def paste(canvas: np.ndarray, sprite: np.ndarray, left: int, top: int) -> None:
    """Compose a premultiplied sprite over the canvas, in place."""
    n = sprite.shape[0]
    region = canvas[top : top + n, left : left + n]
    region *= 1 - sprite[..., 3:]
    region += sprite[..., :3]


def caption_of(rng: np.random.Generator, things: str, colour: str, pattern: str | None, style: str) -> str:
    ground = f"{pattern} {colour} background" if pattern else f"{colour} background"
    a = "an" if ground[0] in "aeiou" else "a"
    forms = (f"a photo of {things} on {a} {ground}",) * 3 + (
        f"{things} on {a} {ground}",
        f"a picture of {things}, {ground}",
    )
    text = forms[rng.integers(len(forms))]
    return f"{text}, {STYLES[style]}" if rng.random() < 0.75 else text


def with_article(noun: str) -> str:
    if noun in {"cherries", "grapes", "sunglasses", "corn", "broccoli", "fire"}:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def compose(rng: np.random.Generator, sprites: Sprites, others: float = 0.0, plain: bool = False) -> Scene:
    """One scene. others: share of scenes with a sprite outside OBJECTS; plain: one object, plain ground, usual size."""
    style = list(STYLES)[rng.integers(len(STYLES))]
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    pattern = None if plain or rng.random() < 0.76 else PATTERNS[rng.integers(len(PATTERNS))]
    canvas = background(rng, colour, pattern).copy()
    names = list(OBJECTS)
    index = int(rng.integers(len(names)))
    if rng.random() < others:
        stem = [s for f, s in sprites.of if f == style][rng.integers(sum(f == style for f, _ in sprites.of))]
        name = next((n for n, s in OBJECTS.items() if s == stem), stem.replace("_", " "))
        index = names.index(name) if name in OBJECTS else -1
    else:
        name, stem = names[index], OBJECTS[names[index]]
    single = plain or rng.random() >= 0.08
    if single:
        kind = rng.random()
        word, low, high = (
            ("", 0.68, 0.88)
            if plain or kind < 0.8
            else ("small ", 0.44, 0.54)
            if kind < 0.9
            else ("large ", 0.86, 0.94)
        )
        pixels = round(rng.uniform(low, high) * SIZE)
        slack = SIZE - pixels
        left, top = (round(slack / 2 + rng.uniform(-0.3, 0.3) * slack) for _ in range(2))
        paste(canvas, sprites.at(style, stem, pixels), left, top)
        things = with_article(name) if not word else f"a {word}{name}"
    else:
        second = names[rng.integers(len(names))]
        for k, s in enumerate((stem, OBJECTS[second])):
            pixels = round(rng.uniform(0.44, 0.5) * SIZE)
            paste(
                canvas,
                sprites.at(style, s, pixels),
                k * (SIZE // 2) + rng.integers(0, SIZE // 2 - pixels + 1),
                int(rng.integers(8, SIZE - pixels - 7)),
            )
        things = f"{with_article(name)} and {with_article(second)}"
    text = caption_of(rng, things, colour, pattern, style)
    pixels_out = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(pixels_out, text, index, list(STYLES).index(style), list(COLOURS).index(colour), single)


def batch_of(
    rng: np.random.Generator, sprites: Sprites, count: int, others: float = 0.0, plain: bool = False
) -> list[Scene]:
    return [compose(rng, sprites, others, plain) for _ in range(count)]


def objects_in(caption: str) -> list[str]:
    """The OBJECTS that a caption names."""
    return _NAMES.findall(caption)


_NAMES = re.compile("|".join(rf"\b{re.escape(n)}\b" for n in sorted(OBJECTS, key=len, reverse=True)))
