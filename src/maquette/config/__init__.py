"""The options of each command, one pydantic model per command, from which command line options and TOML keys follow.

Nothing here imports torch, so that `--help` and whoever submits a run need none. Of `maquette generate`, whose keys are
those of a Pipeline, the model is `sampling/draw_settings.py`.
"""

from __future__ import annotations

from .base import Count as Count
from .base import DenoisingSteps as DenoisingSteps
from .base import Fraction as Fraction
from .base import Kind as Kind
from .base import Positive as Positive
from .base import Precision as Precision
from .base import Prediction as Prediction
from .base import StageConfig as StageConfig
from .base import parse_setting as parse_setting
from .base import toml_text as toml_text
from .train import OPTIMIZER_ARGS as OPTIMIZER_ARGS
from .train import TrainConfig as TrainConfig
