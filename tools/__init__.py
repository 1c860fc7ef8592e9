"""What made the shipped base. Threads wait as in the product."""

import maquette  # noqa: F401  before torch
