"""A LoRA out of the difference of two checkpoints: by randomised SVD (LoRA, LoCon), as DoRA, or as the nearest
Kronecker product (LoKr). Layer by layer, so that no model is ever in memory as a whole.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..adapters import maths as adapter_maths
from ..adapters.file import Adapter, AdapterModule
from ..core import lowrank
from ..core.lowrank import RankRule
from ..errors import MaquetteError
from ..families.checkpoint import Checkpoint
from ..families.detect import FAMILY_NAMES
from ..families.sd.spec import TARGETS, TEXT_TARGETS
from ..formats.streaming import MEMORY, Budget, run_all
from ..methods.lokr import split
from . import stream
from .products import kept_energy, product_from, product_of, relative_error, set_rank_metadata

METHODS = ("lora", "locon", "lokr")
DYNAMIC_MOST = 128  # the largest rank that a rule alone gives a layer
_LINEAR = ("attention", "feed_forward")


@dataclass(frozen=True)
class Plan:
    """What is extracted. method: lora (linear layers and 1 × 1 convolutions), locon (all convolutions of residual
    blocks and samplers too) or lokr (of either kind of layer, those of locon).

    rule: the rank; conv_rule: of convolutions with a kernel. dora_axis: None, or 0 and 1 for a magnitude per output or
    input. factor: the side of LoKr's smaller factor. clamp_quantile: limit the factors' numbers to this quantile of
    them. min_difference: leave out layers whose largest change is not above it.
    """

    rule: RankRule
    conv_rule: RankRule | None = None
    method: str = "lora"
    dora_axis: int | None = None
    factor: int = 8
    text_encoders: bool = True
    clamp_quantile: float = 1.0
    min_difference: float = 0.0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Extracted:
    """One layer. rank: None for a LoKr of two whole factors. energy: ||W_tuned − W_base||²_F. error: what is left of
    the difference's norm when the written factors are applied, ||ΔW − ΔW'||_F / ||ΔW||_F.
    """

    name: str
    rank: int | None
    energy: float
    error: float

    @property
    def kept(self) -> float:
        """Share of the energy that is kept; below 0 where the factors do more harm than good."""
        return 1 - self.error**2


@dataclass
class Extraction:
    """The adapter and the report. unchanged: layers that do not differ (or too little). left_out: kind of layer that
    such an adapter does not hold -> the energy of its difference.
    """

    adapter: Adapter
    layers: list[Extracted] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> float:
        """Share of the difference's energy that is kept, of the layers that are adapted."""
        return kept_energy((layer.energy, layer.kept) for layer in self.layers)

    @property
    def kept_of_all(self) -> float:
        """The same of every difference between UNets and text encoders."""
        held = sum(layer.energy for layer in self.layers)
        whole = held + sum(self.left_out.values())
        return self.kept * held / whole if whole else 1.0


def extract(
    tuned: Checkpoint,
    base: Checkpoint,
    plan: Plan,
    on_layer: Callable[[int, int], None] = lambda done, of: None,
    threads: int = 1,
) -> Extraction:
    """The adapter that turns `base` into about `tuned`, with Kohya's names.

    Deterministic, whatever the number of threads; on_layer is called by one at a time. Every error is measured on the
    factors as they are stored. Raises MaquetteError for checkpoints of different families or sizes, for numbers that
    are none, and where nothing differs.
    """
    _require_pair(tuned, base, plan)
    targets = {name: place for name, place in stream.layers(base).items() if _is_target(place, plan)}
    found: dict[str, tuple[dict[str, Tensor], float, float]] = {}
    left_out: dict[stream.Name, float] = {}
    budget, reporting, done = Budget(MEMORY), threading.Lock(), itertools.count(1)

    def one_layer(name: str, place: stream.Name) -> None:
        copies = 1 if plan.dora_axis is None and plan.method != "lokr" else 6
        with budget.of(4 * copies * base.parts[place[0]][place[1]].numel()):
            change, energy = stream.difference(tuned, base, place)
            if energy > 0 and float(change.abs().max() if plan.min_difference else 1) > plan.min_difference:
                found[name] = (*_layer(change, place, tuned, base, plan), energy)
        with reporting:
            on_layer(next(done), len(targets))

    def one_other(place: stream.Name) -> None:
        left_out[place] = stream.change_energy(tuned, base, place)

    places = {name: (part, f"{path}.weight") for name, (part, path) in targets.items()}
    others = _others(tuned, base, set(places.values()))
    run_all(
        [partial(one_layer, name, place) for name, place in places.items()]
        + [partial(one_other, place) for place in others],
        threads,
    )
    if not found:
        raise MaquetteError(_nothing(tuned, base, plan))
    result = Extraction(Adapter(base.spec.name, "dora" if plan.dora_axis is not None else plan.method, {}))
    for name in places:
        if name not in found:
            result.unchanged.append(name)
            continue
        factors, error, energy = found[name]
        result.adapter.modules[name] = AdapterModule(factors)
        result.layers.append(Extracted(name, result.adapter.modules[name].rank, energy, error))
    for place in others:
        if left_out[place] > 0:
            kind = _kind(place, base.parts[place[0]][place[1]])
            result.left_out[kind] = result.left_out.get(kind, 0.0) + left_out[place]
    _finish(result, tuned, base, plan)
    return result


def _layer(
    change: Tensor, place: stream.Name, tuned: Checkpoint, base: Checkpoint, plan: Plan
) -> tuple[dict[str, Tensor], float]:
    """A layer's factors, and the relative error that they make."""
    generator = torch.Generator().manual_seed(0)
    has_kernel = change.ndim == 4 and change.shape[2:] != (1, 1)
    rule = plan.conv_rule if has_kernel and plan.conv_rule is not None else plan.rule
    if plan.dora_axis is not None:
        before = stream.exact(base, place)
        factors = as_dora(stream.exact(tuned, place), before, rule, plan, generator)
        return factors, relative_error(change, adapter_maths.delta(factors, before))
    if plan.method == "lokr":
        factors = _lokr(change, rule.rank, plan, generator)
        return factors, relative_error(change, adapter_maths.delta(factors))
    factors = _lora(change, rule, plan, generator)
    product = product_of(factors)
    assert product is not None
    return factors, relative_error(change, product)


def _require_pair(tuned: Checkpoint, base: Checkpoint, plan: Plan) -> None:
    if plan.method == "lokr" and plan.dora_axis is not None:
        raise MaquetteError("a LoKr is not extracted with a magnitude; leave --dora out, or take --method lora.")
    if tuned.spec.name != base.spec.name:
        raise MaquetteError(
            f"{tuned.source} is {FAMILY_NAMES[tuned.spec.name]}, {base.source} is {FAMILY_NAMES[base.spec.name]}: only "
            "the difference of two models of one family can be extracted."
        )
    for name, (part, path) in stream.layers(base).items():
        if not _is_target((part, path), plan):
            continue
        here, there = (model.parts.get(part, {}).get(f"{path}.weight") for model in (tuned, base))
        if here is None or there is None or here.shape != there.shape:
            shapes = [f"a weight of {tuple(t.shape)}" if t is not None else "no such layer" for t in (there, here)]
            raise MaquetteError(
                f"{tuned.source} does not come from {base.source}: for {name} the base has {shapes[0]}, "
                f"the tuned model {shapes[1]}."
            )


def _is_target(place: tuple[str, str], plan: Plan) -> bool:
    part, path = place
    if part != "unet":
        return plan.text_encoders and _TEXT.fullmatch(path) is not None
    return (_UNET if plan.method == "lora" else _UNET_CONV).fullmatch(path) is not None


def _expression(patterns: Iterator[str] | tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?:.*\.)?(?:{pattern})" for pattern in patterns))


_TEXT = _expression(TEXT_TARGETS)
_UNET = _expression(pattern for group in _LINEAR for pattern in TARGETS[group])
_UNET_CONV = _expression(pattern for group in (*_LINEAR, "conv") for pattern in TARGETS[group])


def _lora(change: Tensor, rule: RankRule, plan: Plan, generator: torch.Generator) -> dict[str, Tensor]:
    flat = change.flatten(1)
    svd = lowrank.randomised_svd(flat, min(_most(rule), *flat.shape), generator)
    total = lowrank.nuclear_norm(flat) if rule.cumulative is not None else None
    svd = svd.first(rule.choose(svd.s, svd.energy, total))
    product = product_from(svd, tuple(change.shape))
    if plan.clamp_quantile < 1:
        product = product.clamped(plan.clamp_quantile, svd.s)
    return product.factors(plan.dtype)


def _most(rule: RankRule) -> int:
    return rule.rank or DYNAMIC_MOST


def as_dora(after: Tensor, before: Tensor, rule: RankRule, plan: Plan, generator: torch.Generator) -> dict[str, Tensor]:
    """DoRA (arXiv:2402.09353): W' = m (W + ΔW) / ||W + ΔW||, norms per output or input.

    Scaling a row of W + ΔW changes nothing, so ΔW may be the difference, or that to the tuned rows scaled to lie
    nearest to the base's, which is smaller where only magnitudes changed. m is fitted by least squares to the
    directions that the low rank reaches, and the better of both is taken: never worse than a LoRA of this rank. m is
    kept in float32, for a rounding of it changes the whole weight.
    """
    others = [i for i in range(after.ndim) if i != plan.dora_axis]
    squared = after.square().sum(others, keepdim=True).clamp(min=1e-24)
    nearest = after * ((after * before).sum(others, keepdim=True) / squared)
    best: tuple[float, dict[str, Tensor]] | None = None
    for target in (after, nearest):
        factors = _lora(target - before, rule, plan, generator)
        direction = before + adapter_maths.delta(factors).reshape(before.shape)
        norm = torch.linalg.vector_norm(direction, dim=others, keepdim=True).clamp(min=1e-12)
        magnitude = (direction / norm * after).sum(others, keepdim=True)
        error = float(torch.linalg.vector_norm(direction * (magnitude / norm) - after))
        if best is None or error < best[0]:
            best = (error, factors | {"dora_scale": magnitude})
    assert best is not None
    return best[1]


def _lokr(change: Tensor, rank: int | None, plan: Plan, generator: torch.Generator) -> dict[str, Tensor]:
    """kron(w1, w2) with w1's sides near `factor`; w2 whole, or of low rank where the rank makes that smaller."""
    (a, c), (b, d) = (split(side, plan.factor) for side in change.shape[:2])
    flat, kernel = change.flatten(1), change.shape[2:]
    if rank is None or rank >= max(c, d) / 2:
        w1, w2 = lowrank.nearest_kronecker(flat, (a, b))
        return {"lokr_w1": w1.to(plan.dtype), "lokr_w2": w2.reshape(c, d, *kernel).to(plan.dtype)}
    w1, svd = lowrank.low_rank_kronecker(flat, (a, b), rank, generator)
    balance = math.sqrt(float(svd.s.norm()) / max(float(w1.norm()), 1e-30))
    left, right = svd.factors()
    return {
        "lokr_w1": (w1 * balance).to(plan.dtype),
        "lokr_w2_a": (left / math.sqrt(balance)).to(plan.dtype),
        "lokr_w2_b": (right / math.sqrt(balance)).to(plan.dtype),
        "alpha": torch.tensor(float(svd.rank), dtype=plan.dtype),
    }


def _others(tuned: Checkpoint, base: Checkpoint, adapted: set[stream.Name]) -> list[stream.Name]:
    """Tensors of UNet and text encoders that the adapter does not hold."""

    def is_like(name: stream.Name, before: Tensor) -> bool:
        after = tuned.parts.get(name[0], {}).get(name[1])
        return after is not None and after.shape == before.shape

    return [
        name
        for name, before in stream.tensors(base).items()
        if name[0] != "vae" and name not in adapted and is_like(name, before)
    ]


def _kind(name: stream.Name, tensor: Tensor) -> str:
    part, path = name
    if part != "unet":
        return "embeddings of the text encoders" if "embedding" in path else f"{_plain(tensor)} of the text encoders"
    if tensor.ndim == 4 and ("resnets" in path or "samplers" in path):
        return "convolutions"
    return "norms and biases" if tensor.ndim == 1 else "time and input layers"


def _plain(tensor: Tensor) -> str:
    return "norms and biases" if tensor.ndim == 1 else "layers"


def _nothing(tuned: Checkpoint, base: Checkpoint, plan: Plan) -> str:
    if plan.min_difference:
        return (
            f"no layer of {tuned.source} differs by more than {plan.min_difference:g} from {base.source}; choose a "
            "smaller --min-difference."
        )
    return f"{tuned.source} and {base.source} have the same weights in every layer that a {plan.method} changes."


def _finish(result: Extraction, tuned: Checkpoint, base: Checkpoint, plan: Plan) -> None:
    ranks = {layer.rank for layer in result.layers}
    if (
        len(ranks) > 1 and plan.method != "lokr"
    ):  # a missing alpha is the rank to all; diffusers misreads differing ones
        for module in result.adapter.modules.values():
            module.factors.pop("alpha", None)
    spec, predicts = base.spec, base.scheduler.get("prediction_type", "epsilon")
    metadata = {
        "ss_base_model_version": spec.base_model_version,
        "ss_network_module": "networks.lora" if plan.method == "lora" else "lycoris.kohya",
        "ss_sd_model_name": _file(base),
        "ss_v2": str(spec.name == "sd2"),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{spec.architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": "v" if predicts == "v_prediction" else predicts,
        "maquette.extracted_from": f"{_file(tuned)} minus {_file(base)}",
    }
    if plan.method != "lora":
        metadata["ss_network_args"] = f'{{"algo": "{plan.method}"}}'
    result.adapter.metadata = set_rank_metadata(metadata, {rank or 0 for rank in ranks}, "maquette extract")


def _file(model: Checkpoint) -> str:
    return model.source.replace("\\", "/").rstrip("/").rpartition("/")[2]
