"""The base model that ships inside the package: Stable Diffusion 1's architecture, small, 64 x 64 pixels."""

from __future__ import annotations

from pathlib import Path

from ..base import FamilySpec

WEIGHTS = Path(__file__).parent / "weights"
TOKEN_WIDTH = 128  # numbers of a text token, as its UNet reads them
CONTROLNETS = Path(__file__).parent / "controlnets"
POCKET = FamilySpec("pocket", "maquette_pocket", "maquette-pocket", native_size=64, latent_factor=4, text_parts=("te",))
