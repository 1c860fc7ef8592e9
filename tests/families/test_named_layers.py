"""Names of layers, told without building a network: those of the networks."""

from __future__ import annotations

import pytest

from maquette.adapters.kohya_names import named
from maquette.errors import MaquetteError
from maquette.families import full_size
from maquette.families.named_layers import layer_names


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "pocket"])
def test_they_are_the_networks(family: str) -> None:
    wanted = set()
    for part, network in full_size.networks(family).items():
        if part != "vae":
            layers = (path for path, module in network.named_modules() if hasattr(module, "weight"))
            wanted |= {named(part, path) for path in layers}
    assert layer_names(family) == wanted


def test_another_family() -> None:
    with pytest.raises(MaquetteError, match="no family 'flux'; choose from sd1, sd2, sdxl and pocket"):
        layer_names("flux")
