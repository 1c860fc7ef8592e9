"""Measurements behind every number of the docs. Threads wait as in the product, in each of them."""

import maquette  # noqa: F401  before torch
