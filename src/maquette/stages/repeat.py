"""`maquette generate --from PICTURE`: the settings in a picture's text, with the files that it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.images import read_photo
from ..errors import MaquetteError
from ..events import Event, Listener, ignore
from ..formats.picture_files import read_parameters
from ..sampling.beginning import picture_hash
from ..sampling.control_unit import ControlUnit
from ..sampling.enlarging import UPSCALERS
from ..sampling.recipe import Recipe, read_recipe


def repeated(picture: Path, given: dict[str, Any], on_event: Listener = ignore) -> dict[str, Any]:
    """Keys and values of GenerateConfig that draw a picture again; `given` ones win.

    Raises MaquetteError for a picture without text, and for one that was made with files that are not given, which the
    sentence names with the options for them.
    """
    text = read_parameters(picture)
    if not text:
        raise MaquetteError(f"{picture} holds no text that says how it was drawn, as A1111 and maquette write it.")
    recipe = read_recipe(text)
    for entry in recipe.unknown:
        _warn(on_event, f"{picture}: {entry!r} cannot be understood and is left out.")
    if recipe.absent:
        _warn(on_event, f"{picture} was drawn with {', '.join(recipe.absent)}, which maquette has not: left out.")
    values = {**recipe.settings, **({"prediction_type": recipe.prediction} if recipe.prediction else {}), **given}
    missing = [*_base(recipe, values), *_models(recipe, values), *_pictures(recipe, values)]
    controls = [ControlUnit.of_text(unit) if isinstance(unit, str) else unit for unit in given.get("controls") or []]
    missing += [
        f"the ControlNet {wanted['model']} and its picture (--control FILE,image=FILE)"
        for wanted in recipe.controls[len(controls) :]
    ]
    if missing:
        raise MaquetteError(f"{picture} was drawn with {'; '.join(missing)}: name what is missing.")
    if recipe.vae and not given.get("vae"):
        _warn(on_event, f"{picture} was drawn with the VAE {recipe.vae}; name it with --vae.")
    if controls:
        values["controls"] = [_merged(recipe.controls, i, unit) for i, unit in enumerate(controls)]
    if recipe.init_hash and values.get("init_image") and Path(values["init_image"]).is_file():
        begun = read_photo(Path(values["init_image"])).image
        if picture_hash(begun) != recipe.init_hash:
            _warn(on_event, f"{values['init_image']} is not the picture that {picture} was drawn from.")
    return values


def _base(recipe: Recipe, values: dict[str, Any]) -> list[str]:
    if values.get("base"):
        return []
    if recipe.model == "pocket":
        values["base"] = "pocket"
        return []
    short = f" [{recipe.model_hash}]" if recipe.model_hash else ""
    return [f"the base {recipe.model or 'of an unknown name'}{short} (--base FILE)"]


def _models(recipe: Recipe, values: dict[str, Any]) -> list[str]:
    """The upscaler, the second model of hires fix and the refiner, which the text only names."""
    missing = []
    upscaler = values.get("hires_upscaler", UPSCALERS[0])
    if upscaler not in UPSCALERS and not Path(upscaler).is_file():
        missing.append(f"the upscaler {upscaler} (--hires-upscaler FILE)")
    if recipe.hires_model and not values.get("hires_base"):
        missing.append(f"the base of its second drawing {recipe.hires_model} (--hires-base FILE)")
    if recipe.refiner and not values.get("refiner"):
        missing.append(f"the refiner {recipe.refiner} (--refiner FILE)")
    return missing


def _pictures(recipe: Recipe, values: dict[str, Any]) -> list[str]:
    missing = []
    if recipe.begun and not values.get("init_image"):
        missing.append("a picture to begin from (--init-image FILE)")
    if recipe.masked and not values.get("mask"):
        missing.append("a mask (--mask FILE)")
    return missing


def _merged(saved: list[dict[str, Any]], place: int, unit: ControlUnit) -> dict[str, Any]:
    """A ControlNet as the text has it, with what is given now."""
    return {**(saved[place] if place < len(saved) else {}), **unit.model_dump(exclude_unset=True)}


def _warn(on_event: Listener, message: str) -> None:
    on_event(Event("warning", {"message": message}))
