"""Every measure of a checkpoint, each one function with its formula and source.

f is what the checkpoint answers, f0 what the base does; V is the subject, x_t a noisy picture. Sums are over pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..families.base import BaseModel
from . import judging
from .drawing import Drawing, draw
from .panel import Panel
from .rows import answers_of
from .tuned import Source, Tuned, tuned

OVERFLOWN = 1e6  # latents and noise have deviations of about 1


def measure(base: BaseModel, lora: Source, weight: float, panel: Panel, drawings: bool = True) -> dict[str, float]:
    """All measures by name: the means of `measure_items`."""
    items = measure_items(base, lora, weight, panel, drawings)
    return {name: sum(values) / len(values) for name, values in items.items()}


def measure_items(
    base: BaseModel, lora: Source, weight: float, panel: Panel, drawings: bool = True
) -> dict[str, list[float]]:
    """The values of which each measure is the mean: of photos, panel rows or drawn pictures, in a fixed order.

    lora: file, adapter, state or None (see `tuned`). drawings False: only the panel's, a quarter of the time.
    Raises MaquetteError for a file that does not fit the base.
    """
    return examine(base, tuned(base, lora, panel.subject), weight, panel, drawings)[0]


@torch.no_grad()
def examine(
    base: BaseModel, change: Tuned, weight: float, panel: Panel, drawings: bool = True
) -> tuple[dict[str, list[float]], Drawing | None]:
    """`measure_items`, and the latents that were drawn."""
    with change(weight) as changed:
        said = {name: usable(x) for name, x in answers_of(changed, panel.rows, panel.clip_skip).items()}
        drawn = draw(changed, panel.plan, panel.plan.subject_prompts) if drawings else None
    if drawn is not None:
        drawn = Drawing(usable(drawn.subject), usable(drawn.others))
    found = of_answers(panel, said)
    if drawn is not None:
        found |= of_drawing(base, panel, drawn)
    names = list(found)
    values = torch.cat([found[name].float() for name in names]).cpu()  # one wait for the device
    parts = values.split([len(found[name]) for name in names])
    return {name: part.tolist() for name, part in zip(names, parts, strict=True)}, drawn


def usable(x: Tensor) -> Tensor:
    """The same (B, C, h, w), with 0 for each of B that is not finite or far too large, as a file that diverged or too
    high a weight makes it: that is measured as very bad, and the choice is among the others.
    """
    return torch.where((x.abs() < OVERFLOWN).all(-1).all(-1).all(-1)[:, None, None, None], x, 0.0)


def of_answers(panel: Panel, said: dict[str, Tensor]) -> dict[str, Tensor]:
    """The measures on the panel, from a checkpoint's answers to `panel.rows`."""
    own = panel.base
    relative = relative_loss(said["photos"], own["photos"], panel.target, len(panel.names), panel.timesteps)
    held = torch.tensor(panel.held, device=relative.device)
    found = {"benefit": 1.0 - relative[~held]}
    if panel.held.count(True):
        found["held_benefit"] = 1.0 - relative[held]
        found["gap"] = relative[held] - relative[~held].mean()
    found["drift"] = drift(said["kept"], own["kept"], panel.empty["kept"])
    found["neighbour_drift"] = drift(said["others"], own["others"], panel.empty["others"])
    found["leak"] = leak(said["class"], said["subject"], own["class"])
    noisy = panel.noisy
    found["edit_retention"] = edit_retention(said["edits"] - said["subject"][noisy], own["edits"] - own["class"][noisy])
    return found


def of_drawing(base: BaseModel, panel: Panel, drawn: Drawing) -> dict[str, Tensor]:
    """The measures on what a checkpoint drew, judged by the frozen base. Likeness is that of pictures asked for with an
    attribute: what is drawn without one says more of the photos than of the subject.
    """
    eye, like = panel.eye, panel.references
    look = eye.look(drawn.subject)
    seen = judging.margins(base, drawn, panel.plan, panel.schedule, panel.draws, panel.seed, panel.clip_skip)
    unit = panel.margins
    compared = look.statistics if panel.describe is None else panel.describe(drawn.subject)
    return {
        "likeness": likeness(like.similarity(compared), like.low, like.high),
        "identity": identity(eye.similarity(look.features), eye.similarity_to_others(look.features)),
        "obedience": seen.subject_share,
        "obedience_margin": seen.subject_margin / unit.subject_margin.mean().clamp(min=1e-6),
        "neighbours": seen.others_share,
        "neighbours_margin": seen.others_margin / unit.others_margin.mean().clamp(min=1e-6),
        "copying": copying(drawn.subject, panel.every),
        # all pictures in a style are alike, and ought to be
        **({} if panel.style else {"diversity": (vendi(look.features) / vendi(panel.look.features))[None]}),
    }


def relative_loss(said: Tensor, base: Tensor, target: Tensor, photos: int, times: int) -> Tensor:
    """(n,) loss of each photo, relative to the base's over all photos, the mean over timesteps.

    r(i) = mean_t [ sum |f - y|^2 of photo i / mean over photos of sum |f0 - y|^2 ]. Dividing each timestep by the
    base's loss keeps the noisy ones from counting for all (OneTrainer's issue 772; APT, arXiv 2507.02687).
    said, base, target: (n T, C, h, w).
    """
    error = _square(said - target).unflatten(0, (photos, times))  # (n, T)
    usual = _square(base - target).unflatten(0, (photos, times))
    result: Tensor = (error / usual.mean(0, keepdim=True).clamp(min=1e-12)).mean(1)
    return result


def drift(said: Tensor, base: Tensor, empty: Tensor) -> Tensor:
    """(R,) d = |f(x_t, c) - f0(x_t, c)|^2 / mean |f0(x_t, c) - f0(x_t, "")|^2: the latent Fisher divergence of Infusion
    (arXiv 2404.14007), in units of what the prompt c itself does.
    """
    return _square(said - base) / _square(base - empty).mean().clamp(min=1e-12)


def leak(class_said: Tensor, subject_said: Tensor, class_base: Tensor) -> Tensor:
    """(R,) l = <p, q> / mean |q|^2, p = f(class) - f0(class), q = f(V class) - f0(class): the share of what was learned
    that answers to the class word alone. Language drift (DreamBooth, arXiv 2208.12242, section 3.2) seen from within.
    """
    p, q = class_said - class_base, subject_said - class_base
    return _dot(p, q) / _square(q).mean().clamp(min=1e-12)


def edit_retention(change: Tensor, base_change: Tensor) -> Tensor:
    """(R,) e = <D, D0> / mean |D0|^2, D = f("V class, a") - f("V class"), D0 the same of the base without V, at the
    noisier half of the timesteps. 1: prompts steer as before; 0: they no longer do.
    """
    return _dot(change, base_change) / _square(base_change).mean().clamp(min=1e-12)


def likeness(similarity: Tensor, low: float, high: float) -> Tensor:
    """(B,) how like the subject before the asked background each drawn picture is (`references.py`), so that 0 is what
    the base's pictures of the class reach, with the same prompts and seeds, and 1 the references among themselves:
    (s - l) / (h - l), s the mean cosine of features.
    """
    return (similarity - low) / (high - low)


def identity(to_photos: Tensor, to_class: Tensor) -> Tensor:
    """(B,) the subject's rank in a gallery: share of pairs of a photo (B, n) and a class picture (B, m) of which the
    photo is nearer; the area under the ROC curve of retrieval. 1/2 is chance.
    """
    return (to_photos[:, :, None] > to_class[:, None]).float().mean((1, 2))


def copying(drawn: Tensor, photos: Tensor) -> Tensor:
    """(B,) 1 for a copy: nearer to one photo than half its distance to the second nearest that is another picture (the
    ratio test of Carlini et al., arXiv 2301.13188, appendix).
    """
    distances = distances_to(drawn, photos)
    groups = _alike(distances_to(photos, photos))
    distances = torch.stack([distances[:, group].amin(1) for group in groups], dim=1)
    if len(groups) < 2:
        return torch.zeros(len(drawn), device=drawn.device)
    first, second = distances.topk(2, dim=1, largest=False).values.T
    result: Tensor = (first < 0.5 * second).float()
    return result


def _alike(among: Tensor) -> list[list[int]]:
    """Photos that are the same picture, together: nearer than a tenth of the mean distance. among: (n, n)."""
    near = (among < 0.1 * among.mean()).tolist()
    groups: list[list[int]] = []
    for photo, row in enumerate(near):
        home = next((group for group in groups if row[group[0]]), None)
        if home is None:
            groups.append([photo])
        else:
            home.append(photo)
    return groups


def distances_to(drawn: Tensor, photos: Tensor, grid: int = 4) -> Tensor:
    """(B, n) distance of each picture to each photo, mirrored or cut where that is nearer; of latents averaged over
    grid x grid cells.
    """
    views = [view for photo in (photos, photos.flip(-1)) for view in _cuts(photo)]
    small = [F.adaptive_avg_pool2d(view, grid).flatten(1) for view in views]  # each (n, D)
    points = F.adaptive_avg_pool2d(drawn, grid).flatten(1)  # (B, D)
    return torch.stack([torch.cdist(points, view) for view in small]).amin(0)


def _cuts(photos: Tensor) -> list[Tensor]:
    """The photo, its middle and its corners, an eighth cut off."""
    height, width = photos.shape[-2:]
    dy, dx = max(1, height // 8), max(1, width // 8)
    places = [(dy // 2, dx // 2), (0, 0), (0, dx), (dy, 0), (dy, dx)]
    return [photos, *(photos[..., y : y + height - dy, x : x + width - dx] for y, x in places)]


def vendi(features: tuple[Tensor, ...]) -> Tensor:
    """exp of the entropy of K/n's eigenvalues, K_ij = cosine of pictures i and j (arXiv 2210.02410): between 1, all
    alike, and n. The mean cosine over the eye's ways.
    """
    kernel = torch.stack([f @ f.T for f in features]).mean(0).double()
    values = torch.linalg.eigvalsh(kernel / len(kernel)).clamp(min=1e-12)
    return torch.exp(-(values * values.log()).sum()).float()


def _square(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(1)
