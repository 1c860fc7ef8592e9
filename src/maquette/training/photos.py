"""The photos of a run as `maquette check` sees them: captions, buckets, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import methods
from ..config import TrainConfig
from ..config.photos import template_of
from ..data.buckets import plan
from ..data.caption_options import CaptionOptions
from ..data.dataset import Dataset, hold_out
from ..data.doctor import Look, Looks, require_trainable
from ..data.layouts import read_folder
from ..errors import MaquetteError
from ..families.base import BaseModel
from . import defaults, holding_out


def read_photos(
    config: TrainConfig, base: BaseModel, on_progress: Callable[[str, int, int], None]
) -> tuple[Dataset, TrainConfig, dict[Path, Look]]:
    """Read the photos with captions and buckets, as `maquette check` sees them.

    Returns them, the configuration with what a data set file asks for where the user said nothing, and what is measured
    on each photo. Raises MaquetteError for what `maquette check` calls blocking.
    """
    looks = Looks()
    dataset = read_folder(
        config.photos,
        config.subject,
        reg=config.reg,
        repeats=config.repeats,
        template=template_of(config.kind),
        options=CaptionOptions(
            prefix=config.caption_prefix,
            suffix=config.caption_suffix,
            wildcards=config.caption_wildcards,
            keep_tokens=config.keep_tokens,
            shuffle=config.shuffle_captions,
            tag_dropout=config.tag_dropout,
        ),
        alpha_mask=config.alpha_mask,
        extension=config.caption_extension,
        look=looks.see,
        progress=lambda done, of: on_progress("reading photos", done, of),
    )
    wishes = {key: value for key, value in dataset.settings.items() if key not in config.model_fields_set}
    if wishes:
        config = TrainConfig.parse(config.model_dump(exclude_unset=True) | wishes, str(config.photos))
    resolution = config.resolution or base.spec.native_size
    buckets = defaults.recipe(base.spec).buckets if config.buckets is None else config.buckets
    dataset = plan(dataset, resolution, base.spec.size_multiple, aspect_buckets=buckets, no_upscale=config.no_upscale)
    require_trainable(dataset, config.subject)
    if count := holding_out.count_for(config, dataset):
        dataset = hold_out(dataset, count, config.seed, config.fold or 0)
    _refuse_idle_images(config, dataset)
    return dataset, config, looks


def _refuse_idle_images(config: TrainConfig, dataset: Dataset) -> None:
    """Regularization images that lie with the photos and that the run has no use for; `reg` is refused before."""
    images = dataset.of("class")
    if not images or not (config.prior_preservation or methods.METHODS[config.method].product == "embedding"):
        return
    what = "prior_preservation works without" if config.prior_preservation else f"{config.method} has no use for"
    raise MaquetteError(
        f"{what} regularization images, and {images[0].path.parent} holds some beside the photos: move that folder "
        "elsewhere."
    )
