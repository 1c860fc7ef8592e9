"""A configuration's settings of an adapter, as `methods` takes them."""

from __future__ import annotations

from ..config import TrainConfig
from .base import MethodSpec


def spec_of(config: TrainConfig, family: str = "") -> MethodSpec:
    """Ranks, alphas, dropouts and the rest; not what else follows from the base, such as a word's first vectors.

    family: of the base, where its layers are asked for by their names here.
    """
    return MethodSpec(
        rank=config.rank,
        alpha=config.alpha,
        conv_rank=config.conv_rank,
        conv_alpha=config.conv_alpha,
        dropout=config.dropout,
        rank_dropout=config.rank_dropout,
        module_dropout=config.module_dropout,
        rank_stabilized=config.rank_stabilized,
        block_ranks=config.block_ranks,
        block_alphas=config.block_alphas,
        factor=config.lokr_factor,
        magnitude_axis=0 if config.dora_axis == "output" else 1,
        tokens=config.num_vectors,
        seed=config.seed,
        family=family,
    )
