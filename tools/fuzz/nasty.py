"""Values, texts and changes of bytes that readers trip over."""

from __future__ import annotations

import random
from typing import Any

TEXTS = (
    "",
    " ",
    "a",
    "zkw robot",
    "\0",
    "\x1b[2J",
    "\x9b31m",
    "\u202e",
    "\ud800",
    "[/]",
    "{",
    "}}",
    "../../x",
    "/",
    "\\",
    "'",
    '"',
    "$(touch trap)",
    "`touch trap`",
    "%s%n",
    "é" * 3,
    "日本",
    "\U0001f600",
    "\ufeff",
    "\u2028",
    "nan",
    "inf",
    "-1",
    "1e999",
    "true",
    "None",
    "w" * 5000,
    "a." * 300,
    "(" * 300,
    "9" * 5000,
    "\n" * 50,
    "a,b|c:d;e=f",
    "x" * 200 + "!",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    64,
    255,
    1 << 31,
    1 << 62,
    1 << 63,
    1 << 64,
    10**400,
    -(10**30),
    0.0,
    -0.0,
    0.5,
    1e-300,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    False,
    None,
)


def text(rng: random.Random) -> str:
    """A short text; every other one of several nasty ones."""
    if rng.random() < 0.5:
        return rng.choice(TEXTS)
    return "".join(rng.choice(TEXTS)[:40] for _ in range(rng.randint(1, 4)))


def value(rng: random.Random, depth: int = 0) -> Any:
    """A value as JSON knows them, now and then nested."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NUMBERS)
    if kind < 0.7 or depth > 4:
        return text(rng)
    if kind < 0.72:
        return deep(rng.choice((20, 101, 2000)), rng.choice(("list", "table")))
    if kind < 0.86:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {text(rng): value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


class Raw(str):
    """JSON as it will stand in the file, whatever it says."""


def deep(levels: int, kind: str) -> Raw:
    """Lists in lists, or tables in tables."""
    return Raw("[" * levels + "]" * levels if kind == "list" else '{"a":' * levels + "1" + "}" * levels)


def as_json(thing: Any) -> str:
    """JSON text that also says what Python's writer refuses: deep nesting, 1e999, names that occur twice."""
    import json

    if isinstance(thing, Raw):
        return str(thing)
    if isinstance(thing, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{as_json(v)}" for k, v in thing.items()) + "}"
    if isinstance(thing, list | tuple):
        return "[" + ",".join(map(as_json, thing)) + "]"
    return json.dumps(thing)


def changed(rng: random.Random, thing: Any) -> Any:
    """A nested value with one to three of its leaves, keys or lists replaced, removed or doubled."""
    for _ in range(rng.randint(1, 3)):
        thing = _changed(rng, thing)
    return thing


def _changed(rng: random.Random, thing: Any) -> Any:
    if isinstance(thing, dict) and thing and rng.random() < 0.9:
        key = rng.choice(list(thing))
        act = rng.random()
        if act < 0.1:
            return {k: v for k, v in thing.items() if k != key}
        if act < 0.2:
            return thing | {text(rng): thing[key]}
        return thing | {key: _changed(rng, thing[key])}
    if isinstance(thing, list) and thing and rng.random() < 0.8:
        at = rng.randrange(len(thing))
        act = rng.random()
        if act < 0.1:
            return thing[:at] + thing[at + 1 :]
        if act < 0.2:
            return thing + [thing[at]] * rng.choice((1, 3, 1000))
        return [*thing[:at], _changed(rng, thing[at]), *thing[at + 1 :]]
    return value(rng)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few flipped, a part cut, doubled, zeroed or moved; often as they are."""
    act = rng.random()
    if not data or act < 0.4:
        return data
    raw = bytearray(data)
    start = rng.randrange(len(raw))
    end = min(len(raw), start + rng.choice((1, 2, 8, 64, 1000)))
    if act < 0.6:
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif act < 0.7:
        del raw[start:]
    elif act < 0.8:
        del raw[start:end]
    elif act < 0.9:
        raw[start:start] = raw[start:end] * rng.choice((1, 1, 100))
    else:
        raw[start:end] = bytes(end - start)
    return bytes(raw)
