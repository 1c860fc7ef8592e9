"""The names of the sources of noise, for settings that are read without PyTorch."""

from __future__ import annotations

from typing import Literal

NoiseSource = Literal["CPU", "NV", "GPU"]
"""PyTorch's noise on a CPU; that of NVIDIA's cards, computed on the CPU; the card's own."""
