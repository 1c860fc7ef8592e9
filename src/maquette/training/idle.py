"""What a run tells of options that were given and have no effect beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import TrainConfig
from ..config.needs import NEEDS
from ..data.dataset import Dataset
from ..methods import METHODS

_FILLED = ("alpha", "text_encoder_learning_rate", "embedding_learning_rate")  # in run.toml, of use or not
_OF_ADAPTERS = ("rank", "alpha", "lora_plus_ratio")
# What a data set file says of captions, and its words for that.
_IN_FILES = {
    "caption_prefix": "caption_prefix", "caption_suffix": "caption_suffix", "caption_extension": "caption_extension",
    "caption_wildcards": "enable_wildcard", "shuffle_captions": "shuffle_caption", "keep_tokens": "keep_tokens",
    "tag_dropout": "caption_tag_dropout_rate",
}  # fmt: skip


def idle(asked: TrainConfig, resolved: TrainConfig, dataset: Dataset) -> Iterator[str]:
    """A sentence for each reason. asked: the configuration before the defaults were filled in; resolved: after."""
    yield from _needs(asked)
    product = METHODS[asked.method].product
    if product != "adapter" or asked.method in ("loha", "lokr"):
        keys = _OF_ADAPTERS if product != "adapter" else ("lora_plus_ratio",)
        yield from _sentence(_given(asked, keys), f"on the method {asked.method}")
    if not dataset.of("class") and not asked.prior_preservation:
        yield from _sentence(
            _given(asked, ("prior_share", "prior_loss_weight")), "without regularization images or prior_preservation"
        )
    if dataset.layout == "toml":
        for key in _given(asked, tuple(_IN_FILES)):
            file = Path(asked.photos).name
            yield f"{key} has no effect: {file} says how its captions are read; write {_IN_FILES[key]} there."
    elif not (asked.shuffle_captions or asked.tag_dropout):
        yield from _sentence(_given(asked, ("keep_tokens",)), "without shuffle_captions or tag_dropout")
    if not asked.pyramid_noise_levels:
        yield from _sentence(_given(asked, ("pyramid_noise_discount",)), "without pyramid_noise_levels")
    if not resolved.buckets:
        yield from _sentence(_given(asked, ("no_upscale",)), "without buckets")


def _needs(asked: TrainConfig) -> Iterator[str]:
    """Options that another choice of another option would make sense of."""
    for key, (other, wanted) in NEEDS.items():
        chosen = getattr(asked, other)
        kernels = key in ("conv_rank", "conv_alpha") and "conv" in (asked.layers or ())
        waves = key == "lr_scheduler_cycles" and asked.lr_scheduler_cycles == 1  # what `import kohya` fills in
        if chosen not in wanted and not kernels and not waves:
            shown = str(chosen).lower() if isinstance(chosen, bool) else chosen
            yield from _sentence(_given(asked, (key,)), f"with {other} = {shown}")


def _given(config: TrainConfig, keys: Sequence[str]) -> list[str]:
    """Those of the keys that are not at their defaults, nor filled in by the run whose run.toml this is."""
    fields, given = TrainConfig.model_fields, config.model_fields_set
    passed_over = _FILLED if given.issuperset(_FILLED) else ()
    return [key for key in keys if key not in passed_over and getattr(config, key) != fields[key].default]


def _sentence(keys: list[str], where: str) -> Iterator[str]:
    if keys:
        yield f"{', '.join(keys)} {'have' if len(keys) > 1 else 'has'} no effect {where}."
