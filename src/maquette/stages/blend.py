"""`maquette blend`: two or three checkpoints, or a recipe of many, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapters import block_weights
from ..config.blend import BlendConfig, FormulaConfig, RecipeConfig
from ..core.dtypes import PRECISIONS
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..families import hub, parts
from ..families.checkpoint import Checkpoint
from ..parsing import read_toml
from ..weights import blend as algebra
from ..weights import merge, stream
from ..weights.ancestry import Ancestry, Parent, roles
from ..weights.blend import Blend, Evaluation, Model, Node, Shares, WithLoras
from ..weights.modes import MODES
from . import lora_option
from .merge import files_of
from .writing_model import WrittenModel, drop_averages, refuse_taken, write


class _Kitchen:
    """Opens models and LoRAs, each once, and remembers what was used."""

    def __init__(self, presets: Mapping[str, str] | None) -> None:
        self.presets = presets
        self.opened: dict[str, Checkpoint] = {}
        self.loras: list[tuple[str, Path, str]] = []
        self.notes: list[str] = []

    def model(self, path: Path) -> Model:
        key = str(path)
        if key not in self.opened:
            self.opened[key] = stream.open_model(path)
        return Model(self.opened[key])

    def blend(self, config: FormulaConfig, inputs: Sequence[Node]) -> Blend:
        mode = MODES[config.mode]
        if len(inputs) != mode.models:
            raise MaquetteError(
                f"the mode {config.mode} is {mode.says}: it takes {mode.models} models, not {len(inputs)}."
            )
        given = {"unet": config.alpha_unet, "text_encoder": config.alpha_te, "vae": config.alpha_vae}
        family = algebra.models(inputs[0])[0].spec.name
        blocks = block_weights.parse(config.blocks, family, self.presets) if config.blocks else None
        shares = Shares(
            mode.alpha if config.alpha is None else config.alpha,
            {part: value for part, value in given.items() if value is not None},
            blocks,
            config.layers,
        )
        if config.beta is not None and config.mode not in ("triple-sum", "sum-twice"):
            raise MaquetteError(f"the mode {config.mode} has no beta; it is {mode.says}.")
        beta = config.beta if config.beta is not None else {"triple-sum": 1 / 3, "sum-twice": 0.5}.get(config.mode, 0.0)
        return Blend(config.mode, tuple(inputs), shares, beta, config.density, config.spread, config.seed)

    def with_loras(self, inner: Node, written: Sequence[str], folder: Path) -> WithLoras:
        model = algebra.models(inner)[0]
        found = []
        for text in written:
            option = lora_option.parse(str(folder / text) if not Path(text).is_absolute() else text)
            found.append(option.opened(model.spec.name, self.presets))
            self.loras.append((option.file.name, option.file, option.weight))
            self.notes += found[-1].adapter.notes
            if found[-1].adapter.embeddings:
                self.notes.append(
                    f"{option.file} carries a word, which a checkpoint cannot hold: use `maquette merge` to have it "
                    "written beside the model."
                )
        return WithLoras(inner, merge.plan(model, found))


def run(config: BlendConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> WrittenModel:
    """Blend. Raises MaquetteError naming the fault; nothing is written then."""
    on_event = until(cancel, on_event)
    kitchen = _Kitchen(block_weights.read_presets(config.block_presets) if config.block_presets else None)
    recipe = _read_recipe(config) if config.recipe else None
    sources = [*config.models, *(recipe.models.values() if recipe else [])]
    sources += [path for path in (config.make_inpainting, config.bake_vae) if path]
    refuse_taken(config.out, sources)
    node = _cook(recipe, config, kitchen) if recipe else _plain(config, kitchen)
    warnings = algebra.check(node) + kitchen.notes
    model = algebra.models(node)[0]
    kept = frozenset({"vae"}) if config.bake_vae else frozenset()
    if config.bake_vae:
        parts.replace_vae(model, config.bake_vae)
    drop_averages(model, warnings)
    evaluation = Evaluation(node, PRECISIONS[config.precision], kept)
    ancestry = _ancestry(config, recipe, kitchen)
    result = write(
        config, model, evaluation.pieces, evaluation.memory, evaluation.changed(), ancestry, "blending", on_event
    )
    result.warnings = warnings
    for warning in warnings:
        on_event(Event("warning", {"message": warning}))
    return result


def _plain(config: BlendConfig, kitchen: _Kitchen) -> Node:
    """The tree of the command line's models."""
    if config.make_inpainting is not None:
        return _inpainting(config, kitchen)
    if config.pix2pix:
        raise MaquetteError("--pix2pix belongs to --make-inpainting CUSTOM.")
    if not config.models:
        raise MaquetteError("name the models to blend, or a recipe with --recipe FILE.")
    return kitchen.blend(config, [kitchen.model(path) for path in config.models])


def _inpainting(config: BlendConfig, kitchen: _Kitchen) -> Node:
    """inpainting + α (custom − base), of whichever of the two models has the more channels."""
    assert config.make_inpainting is not None
    wanted = 8 if config.pix2pix else 9
    called = algebra.EXTRA_CHANNELS[wanted]
    if len(config.models) != 2 or config.mode not in ("weighted-sum", "add-difference"):
        raise MaquetteError(
            f"--make-inpainting takes two models, the {called} model and the base that it and CUSTOM come from, and "
            "adds the difference."
        )
    inputs = [kitchen.model(path) for path in config.models]
    channels = [int(one.checkpoint.parts["unet"]["conv_in.weight"].shape[1]) for one in inputs]
    if sorted(channels) != [4, wanted]:
        raise MaquetteError(
            f"{config.models[0]} has {channels[0]} input channels and {config.models[1]} has {channels[1]}; an "
            f"{called} model has {wanted} and its base 4."
        )
    wide, base = inputs if channels[0] == wanted else reversed(inputs)
    custom = kitchen.model(config.make_inpainting)
    formula = config.model_copy(update={"mode": "add-difference"})
    return kitchen.blend(formula, [wide, custom, base])


def _read_recipe(config: BlendConfig) -> RecipeConfig:
    assert config.recipe is not None
    if config.models or config.make_inpainting:
        raise MaquetteError("a recipe names its models itself; leave the others out.")
    recipe = RecipeConfig.parse(read_toml(config.recipe), str(config.recipe))
    folder = config.recipe.parent
    recipe.models = {
        name: path if path.is_absolute() or str(path) == "pocket" or hub.is_hub_id(path) else folder / path
        for name, path in recipe.models.items()
    }
    return recipe


def _cook(recipe: RecipeConfig, config: BlendConfig, kitchen: _Kitchen) -> Node:
    """The tree of a recipe: its last step. Raises MaquetteError for names unknown, unused or of two things."""
    assert config.recipe is not None
    made: dict[str, Node] = {name: kitchen.model(path) for name, path in recipe.models.items()}
    node: Node | None = None
    for step in recipe.steps:
        if step.name in made:
            raise MaquetteError(f"{config.recipe}: {step.name!r} stands for two things.")
        for name in step.models:
            if name not in made:
                raise MaquetteError(
                    f"{config.recipe}: step {step.name!r} uses {name!r}, which is no model and no earlier step."
                )
        inputs = [made[name] for name in step.models]
        if step.loras and len(inputs) != 1:
            raise MaquetteError(f"{config.recipe}: step {step.name!r} puts LoRAs into one model, not {len(inputs)}.")
        if step.loras:
            node = kitchen.with_loras(inputs[0], step.loras, config.recipe.parent)
        else:
            node = kitchen.blend(step, inputs)
        made[step.name] = node
    used = {name for step in recipe.steps for name in step.models} | {recipe.steps[-1].name}
    if idle := [name for name in made if name not in used]:
        raise MaquetteError(
            f"{config.recipe}: no step uses {idle[0]!r}, and the result is the last step, {recipe.steps[-1].name!r}: "
            "name it there, or take it out."
        )
    assert node is not None
    return node


def _ancestry(config: BlendConfig, recipe: RecipeConfig | None, kitchen: _Kitchen) -> Ancestry:
    parents = [Parent(model.source, model.files, model.metadata) for model in kitchen.opened.values()]
    parents += [Parent(str(file), files_of(file), {}, "lora") for _, file, _ in kitchen.loras]
    labels = list(recipe.models) if recipe else []

    def recipe_of(found: Sequence[str]) -> dict[str, Any]:
        facts: dict[str, Any] = {"interp_method": "recipe"}
        by_path = dict(zip(kitchen.opened, found, strict=False))
        if recipe is None:
            mode = "add-difference" if config.make_inpainting is not None else config.mode
            alpha = MODES[mode].alpha if config.alpha is None else config.alpha
            facts = {
                "interp_method": mode,
                "multiplier": alpha,
                **roles([by_path[path] for path in _roles(config, kitchen)]),
            }
            facts |= {key: getattr(config, key) for key in _TOLD if key in config.model_fields_set}
            facts["is_inpainting"] = config.make_inpainting is not None and not config.pix2pix
            facts["is_instruct_pix2pix"] = config.pix2pix
        else:
            facts["models"] = [{"label": label, "hash": by_path[str(recipe.models[label])]} for label in labels]
            facts["steps"] = [step.model_dump(mode="json", exclude_unset=True) for step in recipe.steps]
        hashed = found[len(parents) - len(kitchen.loras) :]
        if kitchen.loras:
            facts["loras"] = [{"hash": h, "weight": w} for h, (_, _, w) in zip(hashed, kitchen.loras, strict=True)]
        facts["bake_in_vae"] = config.bake_vae.name if config.bake_vae else "None"
        return facts

    return Ancestry(parents, recipe_of)


def _roles(config: BlendConfig, kitchen: _Kitchen) -> list[str]:
    """A, B and C; of --make-inpainting the wide model, CUSTOM and the base, as in A1111's merger."""
    paths = [str(path) for path in config.models]
    if config.make_inpainting is None:
        return paths
    paths.sort(key=lambda path: -kitchen.opened[path].parts["unet"]["conv_in.weight"].shape[1])
    return [paths[0], str(config.make_inpainting), paths[1]]


_TOLD = ("beta", "alpha_unet", "alpha_te", "alpha_vae", "blocks", "layers", "density", "seed")
