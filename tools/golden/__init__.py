"""Golden runs: what short runs of everything write, recorded and compared to the byte."""

import maquette  # noqa: F401  before torch
