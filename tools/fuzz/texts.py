"""Captions and prompts, made of their own words."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import nasty

_CAPTION = (
    "zkw robot",
    ", ",
    "{",
    "}",
    "|",
    "(",
    ")",
    "[",
    "]",
    ":1.2)",
    "BREAK",
    "\n",
    "\r\n",
    "\ufeff",
    "{a|b}",
    "\\(",
    " " * 50,
)
_PROMPT = (
    "a cat",
    "(",
    ")",
    "[",
    "]",
    ":",
    ":1.2",
    ":-1e999",
    "|",
    " AND ",
    "BREAK",
    "<lora:a:0.8>",
    "<",
    ">",
    "\\",
    "[a:b:0.5]",
    "[a|b]",
    "::",
    "\n",
    "#",
    "#c\n",
    "(a:nan)",
    "<lora:a:te=1:unet=x>",
    "[a:b:1e9]",
    "\u2003",
    "<lyco::>",
)


def joined(rng: random.Random, pieces: tuple[str, ...], most: int) -> str:
    """Some of the pieces in any order, one of them perhaps very often, and nasty texts among them."""
    made = []
    for _ in range(rng.randint(0, most)):
        act = rng.random()
        piece = nasty.text(rng) if act < 0.1 else rng.choice(pieces)
        made.append(piece * rng.choice((1000, 4000)) if act > 0.995 else piece)
    return "".join(made)


def encoded(rng: random.Random, text: str) -> bytes:
    """The text in UTF-8, now and then in another encoding, now and then damaged."""
    encoding = rng.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "cp1252", "utf-16-le"))
    data = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return nasty.damaged(rng, data) if rng.random() < 0.3 else data


@cache
def _tokenizer() -> Any:
    from maquette.formats.tokenizer import Tokenizer

    return Tokenizer()


def caption_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "a.txt"
    path.write_bytes(encoded(rng, joined(rng, _CAPTION, 30)))
    seed, subject = rng.random(), rng.choice(("zkw robot", "zkw", "a photo of zkw robot"))
    told = {"wildcards": rng.random() < 0.5, "shuffle": rng.random() < 0.5, "tag_dropout": rng.choice((0.0, 0.5, 1.0))}

    def read() -> None:
        from maquette.data.caption_edit import Edits
        from maquette.data.caption_options import CaptionOptions, vary
        from maquette.data.captions import caption_of_class, read_caption
        from maquette.prompts.captions import caption_chunks

        text = read_caption(path).joined
        drawn = vary(text, CaptionOptions(**told), random.Random(seed))  # type: ignore[arg-type]
        caption_chunks(drawn, _tokenizer(), 225, weighted=True)
        caption_of_class(text, subject)
        Edits((("zkw", "ohwx"),), ("hat",), ("b",), "p", "s").apply(text)

    return read


def prompt_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    prompt, steps = joined(rng, _PROMPT, 40), rng.choice((1, 20, 150))

    def read() -> None:
        from maquette.formats.png import format_infotext, parse_infotext
        from maquette.prompts import chunks
        from maquette.prompts.composable import parse_composable
        from maquette.prompts.networks import parse_networks
        from maquette.prompts.schedule import parse_schedule
        from maquette.sampling.lora_tags import tags_of

        parse_infotext(format_infotext(prompt, prompt, {"Steps": steps, "A": prompt}))
        text, networks = parse_networks(prompt)
        for part, _ in parse_composable(text)[:20]:
            for _, piece in parse_schedule(part, steps)[:20]:
                chunks.tokenize(str(piece))
        tags_of(networks)

    return read
