"""A base that is opened once and draws many times: LoRAs change without loading anything again."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from .. import adapters
from ..adapters import embeddings
from ..adapters.block_weights import read_presets
from ..adapters.embeddings import Embedding
from ..config import Prediction
from ..events import Event, Listener, ignore
from ..families.base import BaseModel
from ..fast import memory
from ..formats.png import format_infotext
from ..prompts import parse_networks, strip_comments
from ..prompts.encode import Prompt
from .apply_embeddings import apply_embeddings, embedding_files
from .beginning import Canvas, canvas_of
from .draw_settings import DrawSettings
from .drawing import Drawing
from .ending import Ends
from .finite import NotFiniteError, fault
from .hot_loras import HotLoras
from .images import to_image
from .infotext import for_picture, values_of
from .jobs import MAX_SEED, drawings_of
from .lora_tags import Wish, tags_of
from .opening import Dtype, opened, quickened, require_unasked
from .others import Others
from .read_once import ReadOnce
from .samplers import kind_of, schedule_notice, suited
from .tiled_vae import tiled
from .words import Words, activated, files_of, hints_of, side_cars, surprises, wish_of

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Drawn:
    """A picture, the seed of its noise, and the text that makes it again, also as prompts and values."""

    image: Image
    seed: int
    infotext: str
    prompt: str
    negative_prompt: str
    values: dict[str, Any]


class Pipeline:
    """Opens a base and draws with it as often as asked, from any thread, one drawing at a time.

        pipeline = maquette.Pipeline("sd15.safetensors")
        picture = pipeline.generate("a photo of zkw robot <lora:zkw-robot:0.8>", steps=25)[0].image

    LoRAs stay in the weights until a prompt names others; `close` (or leaving a `with` block) takes them out, and the
    weights are as they were, to the bit. On a processor large layers of the base are exchanged for quicker ones around
    the same weights (`fast.resting`), and stay so.
    """

    def __init__(
        self,
        base: str | PathLike[str] | BaseModel = "pocket",
        *,
        vae: str | None = None,
        prediction_type: Prediction = "auto",
        dtype: Dtype = "auto",
        device: str = "auto",
    ) -> None:
        """base: "pocket", a file or a folder, or a base that `families.load` has opened. Raises MaquetteError."""
        self.notices: list[str] = []
        self.loras: Mapping[str, Path] | None = None
        """LoRAs by the names of prompts, instead of those of a folder."""
        if isinstance(base, BaseModel):
            require_unasked(vae=vae, prediction_type=prediction_type, dtype=dtype, device=device)
            self.base = base
        else:
            self.base, self.notices = opened(base, vae, prediction_type, dtype, device)
        quickened(self.base)
        self._lock = threading.RLock()
        self._loras = HotLoras(self.base)
        self._adapter = ReadOnce(adapters.load)
        self._others = Others(self.base)
        self._warned: set[str] = set()  # warnings of the drawing at work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take LoRAs out of the weights and forget what was loaded besides the base."""
        with self._lock:
            self._loras.clear()
            self._adapter.forget()
            self._others.clear()

    def generate(self, prompt: str, on_event: Listener | None = None, **options: Any) -> list[Drawn]:
        """Draw without writing files. options: keys of `sampling.draw_settings.DrawSettings`."""
        found: list[Drawn] = []
        self.draw(DrawSettings.parse({"prompt": prompt, **options}, "generate"), found.append, on_event or ignore)
        return found

    @torch.no_grad()
    def draw(
        self,
        settings: DrawSettings,
        on_picture: Callable[[Drawn], None],
        on_event: Listener = ignore,
        cancel: threading.Event | None = None,
        interrupt: threading.Event | None = None,
    ) -> None:
        """Draw batch_size x batch_count pictures; each is handed over as soon as it is there.

        Setting `cancel` ends the drawing after the batch at work; setting `interrupt` after the step at work, and the
        pictures are handed over as they are then, as A1111 does. Raises MaquetteError for an unknown LoRA, one that
        does not fit, a picture that cannot be read.
        """
        settings = settings.model_copy(update={"sampler": suited(settings.sampler, self.base.scheduler_config)})
        with self._lock, memory.kept():
            ends = Ends(cancel or threading.Event(), interrupt or threading.Event())
            for drawing in drawings_of(settings):
                if not ends.reached():
                    self._draw(drawing, on_picture, on_event, ends)

    def _draw(
        self,
        settings: DrawSettings,
        on_picture: Callable[[Drawn], None],
        on_event: Listener,
        ends: Ends,
    ) -> None:
        base = self.base
        self._others.keep(settings)
        later = self._others.second(settings) or self._loras
        words = second = self._read(settings.prompt, settings.negative_prompt, settings, base.spec.name)
        if settings.hires_prompt or settings.hires_negative_prompt or later is not self._loras:
            prompt = settings.hires_prompt or settings.prompt
            negative = settings.hires_negative_prompt or settings.negative_prompt
            second = self._read(prompt, negative, settings, later.base.spec.name)
        passes = [words] if second is words else [words, second]
        self._tell(passes, settings, on_event)
        canvas = canvas_of(settings, base.spec.native_size)
        found: list[Embedding] = []
        loras = [*{id(adapter): adapter for each in passes for adapter in each.adapters}.values()]
        try:
            self._fold(self._loras, words.loras, on_event)
            texts = [text for each in passes for text in (each.plain, each.negative)]
            files = embedding_files(base, texts, settings.embedding_dir)
            found += [embeddings.load(file, name=name) for name, file in files.items()]
            own = [(base, loras)] if later is self._loras else [(base, words.adapters), (later.base, second.adapters)]
            with ExitStack() as stack:
                for model, adapters in own:
                    bundled = [word for adapter in adapters for word in adapter.embeddings]
                    stack.enter_context(apply_embeddings(model, bundled))
                    stack.enter_context(apply_embeddings(model, found))
                    if settings.tiled_vae:
                        stack.enter_context(tiled(model))
                self._draw_batches(settings, canvas, words, second, later, files, on_picture, on_event, ends)
        except NotFiniteError as error:  # the base is as it was, so that its numbers and the LoRAs' can be told apart
            self._loras.clear()
            later.clear()
            raise NotFiniteError(fault(base, loras, found)) from error

    def _read(self, prompt: str, negative: str, settings: DrawSettings, family: str) -> Words:
        """Two prompts without comments, and the LoRAs that the first one's tags name, for a base of a family.

        Raises MaquetteError for a tag at fault, an unknown LoRA, too long a prompt.
        """
        given = [prompt, negative]
        if settings.prompt_comments:
            prompt, negative = strip_comments(prompt), strip_comments(negative)
        plain, networks = parse_networks(prompt)
        tags = tags_of(networks, plain)
        warnings = surprises(given, [prompt, negative])
        files = files_of(tags, settings, self.loras, warnings)
        cars = side_cars(files)
        hints = [] if settings.activation else hints_of(plain, cars)
        if settings.activation:
            prompt = activated(prompt, plain, cars)
            plain, networks = parse_networks(prompt)
            tags = tags_of(networks, plain)
        presets = read_presets(settings.block_weights) if settings.block_weights else {}
        named = [(tag, files[tag.name]) for tag in tags if tag.name in files]
        loras = [wish_of(tag, self._adapter(file), family, presets) for tag, file in named]
        return Words(prompt, plain, negative, files, loras, warnings, hints)

    def _tell(self, passes: Sequence[Words], settings: DrawSettings, on_event: Listener) -> None:
        """What the user should know before anything is drawn, each once. passes: the words of each drawing."""
        said = [warning for words in passes for warning in words.warnings]
        notices = [*said, self.base.spec.skips(settings.clip_skip), schedule_notice(settings.sampler)]
        for notice in dict.fromkeys(filter(None, notices)):
            on_event(Event("warning", {"message": notice}))
        for hint in dict.fromkeys(hint for words in passes for hint in words.hints):
            on_event(Event("finding", {"message": hint}))
        self._warned = set()

    def _draw_batches(
        self,
        settings: DrawSettings,
        canvas: Canvas,
        words: Words,
        second: Words,
        later: HotLoras,
        files: dict[str, Path],
        on_picture: Callable[[Drawn], None],
        on_event: Listener,
        ends: Ends,
    ) -> None:
        others, base = self._others, self.base
        refiner = others.refiner(settings)
        drawing = Drawing(
            self._loras, words.loras, self._encoded(base, words, settings), settings, canvas, others.control
        )
        if settings.hires:
            self._fold(later, second.loras, on_event)
            prompts = self._encoded(later.base, second, settings, again=True)
            drawing.add_hires(later, second.loras, prompts, others.upscaler(settings))
        if refiner is not None:
            last = second if settings.hires else words
            drawing.add_refiner(refiner, self._encoded(refiner, last, settings, again=settings.hires))
        size = canvas.width, canvas.height
        other = None if later is self._loras else later.base
        as_read = _as_read(settings, second) if second is not words else settings
        passes = [words] if second is words else [words, second]
        infotext_values = values_of(as_read, base, passes, size, canvas.init_hash, files, other, refiner)
        first = secrets.randbelow(MAX_SEED) if settings.seed == -1 else settings.seed
        varied = secrets.randbelow(MAX_SEED) if settings.variation_seed == -1 else settings.variation_seed
        for batch in range(settings.batch_count):
            if ends.reached():
                return
            places = [batch * settings.batch_size + i for i in range(settings.batch_size)]
            # As in A1111, pictures of one seed differ by their variation seed where there is one.
            seeds = [first if settings.variation_strength else first + place for place in places]
            pixels = drawing.pixels(
                seeds, varied + places[0], batch, lambda at: self._fold(at.loras, at.wishes, on_event), on_event, ends
            )
            for place, seed, each in zip(places, seeds, pixels, strict=True):
                values = for_picture(infotext_values, seed, varied + place)
                text = format_infotext(words.prompt, words.negative, values)
                image = canvas.pasted(to_image(each))
                on_picture(Drawn(image, seed, text, words.prompt, words.negative, values))

    @staticmethod
    def _encoded(base: BaseModel, words: Words, settings: DrawSettings, again: bool = False) -> tuple[Prompt, Prompt]:
        """The prompt and the negative one as a base of a drawing reads them. again: of the second drawing."""
        sampler, steps = settings.sampler_and_steps(again)
        options: dict[str, Any] = {
            "clip_skip": settings.clip_skip,
            "emphasis": settings.emphasis,
            "batch": settings.batch_size,
            "counting": settings.prompt_editing,
            "calls_per_step": kind_of(sampler).calls,
        }
        if again:
            counted = kind_of(settings.sampler).calls if settings.prompt_editing == "A1111" else 1
            options["first_pass"] = settings.steps * counted
        cond = Prompt(base, words.plain, steps, **options)
        return cond, Prompt(base, words.negative, steps, composable=False, zeros=base.spec.zero_negative, **options)

    def _fold(self, loras: HotLoras, wishes: Sequence[Wish], on_event: Listener) -> None:
        """Have these LoRAs in a base's weights, with a warning for what does not exist in the base."""
        for application in loras.set(wishes):
            if application.warning and application.warning not in self._warned:
                self._warned.add(application.warning)
                on_event(Event("warning", {"message": application.warning}))


def _as_read(settings: DrawSettings, second: Words) -> DrawSettings:
    """The settings with the second drawing's prompts as they are drawn, without comments."""
    as_read = {"hires_prompt": second.prompt, "hires_negative_prompt": second.negative}
    return settings.model_copy(update={key: text for key, text in as_read.items() if getattr(settings, key)})
