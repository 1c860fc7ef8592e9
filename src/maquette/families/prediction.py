"""What a model predicts, as far as its file tells: noise, v or velocity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..files import read_bytes
from ..limits import CONFIGURATION_BYTES

PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction", "flow": "flow"}


def prediction_rule(
    path: Path, family: str, variant: str, extras: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> str:
    """Prediction type of a single file, which its shapes do not tell. The first that applies:

    1. `modelspec.prediction_type` in the metadata; 2. a tensor called `v_pred`; 3. a `.yaml` of the same name beside
    it that says `parameterization: "v"`; 4. SD2 other than inpainting and depth, unless its `global_step` is 875000
    (the 512-pixel base model), is v-prediction, as nearly all SD2 models in use are; 5. epsilon.
    """
    prediction = metadata.get("modelspec.prediction_type", "")
    if prediction in PREDICTIONS:
        return PREDICTIONS[prediction]
    if "v_pred" in extras:
        return "v_prediction"
    recipe = path.with_suffix(".yaml")
    if recipe.is_file():
        text = read_bytes(recipe, CONFIGURATION_BYTES, "configuration").decode("utf-8", "replace").replace("'", '"')
        return "v_prediction" if 'parameterization: "v"' in text else "epsilon"
    if family == "sd2" and variant == "base":
        step = extras.get("global_step")
        return "epsilon" if step is not None and step.numel() == 1 and int(step) == 875000 else "v_prediction"
    return "epsilon"


def is_edm(extras: Mapping[str, Tensor], scheduler: Mapping[str, object]) -> bool:
    """Whether a model was trained on EDM's noise levels (Karras et al. 2206.00364): a single file has tensors that say
    them, a folder's scheduler the spread of the data.
    """
    return "edm_mean" in extras or "edm_vpred.sigma_max" in extras or "sigma_data" in scheduler
