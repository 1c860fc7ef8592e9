"""Write k_diffusion.json, what the k-diffusion package makes of small analytic denoisers. Run by hand, never by tests.

pip install --no-deps --target /tmp/kd k-diffusion torchsde trampoline torchdiffeq
PYTHONPATH=src:/tmp/kd:tests/sampling python tests/sampling/record_k_diffusion.py
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from analytic import beginning, fixed_noise, two_peaks

LEVELS = [10.0, 6.1, 3.3, 1.9, 1.1, 0.62, 0.3, 0.11, 0.04, 0.0]
EVERY: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "sample_euler": [("plain", {}), ("churned", {"s_churn": 3.0, "s_tmin": 0.2, "s_tmax": 5.0, "s_noise": 1.1})],
    "sample_heun": [("plain", {}), ("churned", {"s_churn": 3.0, "s_tmin": 0.2, "s_tmax": 5.0, "s_noise": 1.1})],
    "sample_dpm_2": [("plain", {}), ("churned", {"s_churn": 3.0, "s_tmin": 0.2, "s_tmax": 5.0, "s_noise": 1.1})],
    "sample_lms": [("plain", {}), ("order 2", {"order": 2})],
    "sample_dpmpp_2m": [("plain", {})],
    "sample_euler_ancestral": [("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0})],
    "sample_dpm_2_ancestral": [("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0})],
    "sample_dpmpp_2s_ancestral": [("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0})],
    "sample_dpmpp_sde": [("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0})],
    "sample_dpmpp_2m_sde": [
        ("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0}),
        ("heun", {"solver_type": "heun"}), ("heun weak", {"solver_type": "heun", "eta": 0.4}),
    ],
    "sample_dpmpp_3m_sde": [("plain", {}), ("weak", {"eta": 0.4, "s_noise": 0.9}), ("none", {"eta": 0.0})],
}  # fmt: skip


def load() -> tuple[Any, Any]:
    """The package's two modules without the rest of it, which wants torchvision and more."""
    found = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or [])  # type: ignore[union-attr]
    sys.modules["k_diffusion"] = package
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]  # type: ignore[attr-defined]
    sys.modules["k_diffusion.utils"] = package.utils = utils  # type: ignore[attr-defined]
    from k_diffusion import external, sampling

    return sampling, external


def drawn(sampling: Any, name: str, options: dict[str, Any], levels: list[float]) -> list[float]:
    noise = fixed_noise()
    white = torch.randn_like
    torch.randn_like = lambda x: noise(0.0, 0.0).to(x)  # type: ignore[assignment]
    try:
        if name.endswith(("ancestral", "sde")):
            options = {**options, "noise_sampler": lambda a, b: noise(float(a), float(b)).float()}
        x = getattr(sampling, name)(
            lambda x, sigma: two_peaks(x, float(sigma[0])), beginning(levels[0]).float(), torch.tensor(levels),
            disable=True, **options,
        )  # fmt: skip
    finally:
        torch.randn_like = white
    return [round(value, 7) for value in x.flatten().tolist()]


def main() -> None:
    sampling, external = load()
    samplers = [
        {"sampler": name, "case": f"{case}, {way}", "options": options, "sigmas": levels,
         "x": drawn(sampling, name, options, levels)}
        for way, levels in (("whole", LEVELS), ("from the middle", LEVELS[3:]))
        for name, cases in EVERY.items() for case, options in cases
    ]  # fmt: skip
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0).float()

    class Model:
        alphas_cumprod = abar

        def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
            return torch.sin(x * 3 + t.reshape(-1, 1, 1, 1) / 100)

    eps, v = external.CompVisDenoiser(Model()), external.CompVisVDenoiser(Model())
    low, high = eps.sigma_min.item(), eps.sigma_max.item()
    schedules = {
        "Uniform": [eps.get_sigmas(n).tolist() for n in (1, 4, 30)],
        "Karras": [sampling.get_sigmas_karras(n, low, high).tolist() for n in (1, 4, 30)],
        "Exponential": [sampling.get_sigmas_exponential(n, low, high).tolist() for n in (1, 4, 30)],
        "Polyexponential": [sampling.get_sigmas_polyexponential(n, low, high).tolist() for n in (1, 4, 30)],
    }
    places = [0.01, low, 0.0405, 0.3, 1.7, 9.9, high, 20.0]
    x = beginning(1.0).float()[:1]
    cond = torch.zeros(1)
    answers = [
        {"sigma": sigma, "t": eps.sigma_to_t(torch.tensor([sigma])).item(),
         "epsilon": eps(x, torch.tensor([sigma])).flatten().tolist(),
         "v_prediction": v(x, torch.tensor([sigma]), cond=cond).flatten().tolist()}
        for sigma in places
    ]  # fmt: skip
    import torchsde

    tree = torchsde.BrownianTree(torch.tensor(0.03), torch.zeros(4, 2, 2), torch.tensor(14.5), entropy=12345)
    brownian = [
        {"from": a, "to": b, "w": tree(torch.tensor(a), torch.tensor(b)).flatten().tolist()}
        for a, b in ((0.03, 14.5), (3.0, 14.5), (1.25, 3.0), (0.03, 0.04), (7.2, 7.3))
    ]
    found = {"samplers": samplers, "schedules": schedules, "answers": answers, "brownian": brownian}
    text = json.dumps(found).replace('}, {"', '},\n{"')
    (Path(__file__).parent / "k_diffusion.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
