"""Blends of related narrow models of every family: what must hold exactly, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import maquette
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.formats import safetensors
from maquette.stages import blend as stage
from maquette.weights import blend as algebra
from maquette.weights.blend import Blend, Evaluation, Model, Shares
from maquette.weights.modes import MODES
from tests.weights.narrow import flat, numbers, related

FAMILIES = ("sd1", "sd2", "sdxl")


class Related(dict[str, dict[str, Path]]):
    """Files of each family, made when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __missing__(self, family: str) -> dict[str, Path]:
        self[family] = related(self.root, family)
        return self[family]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    return Related(tmp_path_factory.mktemp("related"))


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("inpainting")
    return {channels: related(root, "sd1", "a", channels)["a"] for channels in (8, 9)}


def tensors(path: Path) -> dict[tuple[str, str], Tensor]:
    return flat(checkpoint.read(path))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("out", ["x.safetensors", "x.ckpt", "x"])
def test_nothing_of_b_is_a_bit_for_bit(
    family: str, out: str, files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    a, b = files[family]["a"], files[family]["b"]
    result = maquette.blend([a, b], tmp_path / out, alpha=0)
    assert result.changed == 0
    expected, found = tensors(a), tensors(tmp_path / out)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) and found[key].dtype == expected[key].dtype for key in found)
    if out == "x.safetensors":
        assert safetensors.body_sha256(a) == safetensors.body_sha256(tmp_path / out)


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_what_must_hold_exactly(family: str, files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b, c = (files[family][name] for name in "abc")
    maquette.blend([a, b, b], tmp_path / "same.safetensors", mode="add-difference", alpha=0.7)
    maquette.blend([a, b], tmp_path / "ab.safetensors", alpha=0.25)
    maquette.blend([b, a], tmp_path / "ba.safetensors", alpha=0.75)
    maquette.blend([a, b, c], tmp_path / "abc.safetensors", mode="triple-sum", alpha=0.2, beta=0.3)
    maquette.blend([a, c, b], tmp_path / "acb.safetensors", mode="triple-sum", alpha=0.3, beta=0.2)
    read = {name: tensors(tmp_path / f"{name}.safetensors") for name in ("same", "ab", "ba", "abc", "acb")}
    expected = {name: numbers(files[family][name]) for name in "abc"}
    for key, tensor in tensors(a).items():
        assert torch.equal(read["same"][key], tensor)
        assert torch.equal(read["ab"][key], read["ba"][key])
        assert torch.allclose(
            read["ab"][key].double(), 0.75 * expected["a"][key] + 0.25 * expected["b"][key], atol=1e-7
        )
        assert torch.allclose(read["abc"][key], read["acb"][key], atol=1e-6)


SOME = [
    ("unet", "conv_in.weight"),
    ("unet", "mid_block.attentions.0.proj_in.bias"),
    ("unet", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
    ("text_encoder", "encoder.layers.0.mlp.fc1.weight"),
    ("vae", "decoder.conv_out.weight"),
]


@pytest.mark.parametrize("mode", sorted(MODES))
def test_modes_of_models(mode: str, files: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written, in tiles where these will do, is the formula of whole tensors."""
    models = [checkpoint.read(files["sd1"][name]) for name in "abc"][: MODES[mode].models]
    beta = 0.2 if mode in ("triple-sum", "sum-twice") else 0.0
    evaluation = Evaluation(Blend(mode, tuple(map(Model, models)), Shares(0.3), beta))
    monkeypatch.setattr(algebra, "TILE", 500)
    for part, name in SOME:
        pieces = list(evaluation.pieces(part, name, torch.float32))
        whole = evaluation.tensor((part, name))
        assert torch.allclose(torch.cat(pieces).reshape(whole.shape), whole, atol=1e-6) and whole.dtype == torch.float32
        assert len(pieces) == 1 or MODES[mode].rows
        assert not torch.equal(whole, models[0].parts[part][name])
    assert evaluation.changed() > 0


def test_tiles_are_the_whole(files: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    models = [Model(checkpoint.read(files["sd1"][name])) for name in "ab"]
    evaluation = Evaluation(Blend("weighted-sum", tuple(models), Shares(0.3)))
    expected = evaluation.tensor(("unet", "conv_in.weight"))
    monkeypatch.setattr(algebra, "TILE", 100)
    pieces = list(evaluation.pieces("unet", "conv_in.weight", torch.float32))
    assert len(pieces) > 5 and torch.equal(torch.cat(pieces), expected.flatten())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_of_narrow_types_is_rounded_once(
    dtype: torch.dtype, files: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass in the files' own type gives the bits of the way over float32, whatever two bytes may hold."""
    models = [Model(checkpoint.read(files["sd1"][name])) for name in "ab"]
    name, generator = "conv_in.weight", torch.Generator().manual_seed(0)
    for model in models:
        named = model.checkpoint.parts["unet"]
        bits = torch.randint(-(2**15), 2**15, named[name].shape, generator=generator, dtype=torch.int16)
        named[name] = torch.where(bits.view(dtype).abs() < 1e30, bits, 0).view(dtype)
    monkeypatch.setattr(algebra, "TILE", 64)
    for alpha in (0.3, 0.5, 0.8):
        evaluation = Evaluation(Blend("weighted-sum", tuple(models), Shares(alpha)))
        once = list(evaluation.pieces("unet", name, dtype))
        assert len(once) > 3 and all(piece.dtype == dtype for piece in once)
        wide = [piece.to(dtype) for piece in evaluation.pieces("unet", name, torch.float32)]
        assert torch.equal(torch.cat(once).view(torch.int16), torch.cat(wide).view(torch.int16))


def test_shares_of_parts_blocks_and_layers(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b = files["sd1"]["a"], files["sd1"]["b"]
    blocks = ",".join(["0.5"] + ["0"] * 12 + ["1"] + ["0.25"] * 12)  # BASE, IN, M00, OUT
    maquette.blend([a, b], tmp_path / "x.safetensors", blocks=blocks, alpha_vae=0, layers={"attn2.to_k": 0.75})
    first, second, found = numbers(a), numbers(b), tensors(tmp_path / "x.safetensors")
    for (part, name), tensor in found.items():
        share = 0.5
        if part == "vae" or (part == "unet" and name.startswith(("down_blocks", "conv_in"))):
            share = 0.0
        elif part == "unet" and name.startswith("mid_block"):
            share = 1.0
        elif part == "unet" and name.startswith(("up_blocks", "conv_norm_out", "conv_out")):
            share = 0.25
        if "attn2.to_k" in name:
            share = 0.75
        expected = (1 - share) * first[part, name] + share * second[part, name]
        assert torch.allclose(tensor.double(), expected, atol=1e-6), name
    maquette.blend([a, b], tmp_path / "te.safetensors", alpha=0.4, alpha_te=0.1, alpha_unet=0.9)
    told = {"text_encoder": 0.1, "unet": 0.9, "vae": 0.4}
    for key, tensor in tensors(tmp_path / "te.safetensors").items():
        share = told[key[0]]
        assert torch.allclose(tensor.double(), (1 - share) * first[key] + share * second[key], atol=1e-6)


@pytest.mark.parametrize(("channels", "pix2pix"), [(9, False), (8, True)])
def test_make_inpainting(
    channels: int, pix2pix: bool, files: dict[str, dict[str, Path]], inpainting: dict[int, Path], tmp_path: Path
) -> None:
    """A1111's formula: inpainting + (custom - base), of the input layer its first four channels."""
    custom, base, wide = files["sd1"]["b"], files["sd1"]["a"], inpainting[channels]
    for order in ([wide, base], [base, wide]):
        out = tmp_path / f"{order[0].stem}.safetensors"
        maquette.blend(order, out, make_inpainting=custom, pix2pix=pix2pix)
        expected, b, c = numbers(wide), numbers(custom), numbers(base)
        for key, tensor in tensors(out).items():
            if key == ("unet", "conv_in.weight"):
                expected[key][:, :4] += b[key] - c[key]
                assert torch.equal(tensor[:, 4:], tensors(wide)[key][:, 4:])
            else:
                expected[key] += b[key] - c[key]
            assert torch.allclose(tensor.double(), expected[key], atol=1e-6), key
    recipe = json.loads(safetensors.read_metadata(out)["sd_merge_recipe"])
    roles = [recipe[f"{role}_model_hash"] for role in ("primary", "secondary", "tertiary")]
    assert roles == [safetensors.file_sha256(path) for path in (wide, custom, base)]
    assert recipe["is_inpainting"] is not pix2pix and recipe["is_instruct_pix2pix"] is pix2pix
    with pytest.raises(MaquetteError, match=r"has 4 input channels and .* has 4; an inpainting model has 9"):
        maquette.blend([base, custom], tmp_path / "y.safetensors", make_inpainting=custom)
    with pytest.raises(MaquetteError, match="name it first, as A"):
        maquette.blend([base, wide], tmp_path / "y.safetensors")


def test_a_baked_vae(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b, c = (files["sd1"][name] for name in "abc")
    maquette.blend([a, b], tmp_path / "x.safetensors", bake_vae=c)
    found, vae = tensors(tmp_path / "x.safetensors"), tensors(c)
    assert all(torch.equal(found[key], vae[key]) for key in found if key[0] == "vae")
    assert not torch.equal(found["unet", "conv_in.weight"], tensors(a)["unet", "conv_in.weight"])


RECIPE = """
[models]
me = "a.safetensors"
rv = "b.safetensors"
sd = "c.safetensors"

[[steps]]
name = "transferred"
mode = "add-difference"
models = ["rv", "me", "sd"]
alpha = 0.5

[[steps]]
name = "softer"
models = ["transferred", "rv"]
alpha = 0.25
alpha_vae = 0
"""


def test_a_recipe_is_its_steps(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    for name in "abc":
        shutil.copy(files["sd1"][name], tmp_path / f"{name}.safetensors")
    (tmp_path / "mine.toml").write_text(RECIPE)
    maquette.blend([], tmp_path / "x.safetensors", recipe=tmp_path / "mine.toml")
    me, rv, sd = (numbers(files["sd1"][name]) for name in "abc")
    for key, tensor in tensors(tmp_path / "x.safetensors").items():
        share = 0.0 if key[0] == "vae" else 0.25
        expected = (1 - share) * (rv[key] + 0.5 * (me[key] - sd[key])) + share * rv[key]
        assert torch.allclose(tensor.double(), expected, atol=1e-6), key
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors", "b.safetensors", "c.safetensors", "mine.toml", "x.safetensors",
    ]  # fmt: skip
    tree = maquette.inspect(tmp_path / "x.safetensors", hashes=False).family_tree
    digits = [safetensors.file_sha256(files["sd1"][name])[:10] for name in "abc"]
    assert tree == [
        "recipe",
        f"  me: a.safetensors ({digits[0]})",
        f"  rv: b.safetensors ({digits[1]})",
        f"  sd: c.safetensors ({digits[2]})",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"me", "sd"', '"you", "sd"', r"step 'transferred' uses 'you', which is no model and no earlier step"),
        ('name = "softer"', 'name = "me"', "'me' stands for two things"),
        ("alpha = 0.25", "alfa = 0.25", "number 2 of steps has the unknown key 'alfa'; did you mean 'alpha'"),
        ("alpha = 0.25", "alpha = 25", r"number 2 of steps: alpha = 25 is not possible: input should be less than"),
        ("alpha = 0.25", "layers = {attn2 = 25}", r"number 2 of steps: layers\.attn2 = 25 is not possible"),
        ('name = "softer"', "", "number 2 of steps lacks 'name': What later steps call the result"),
        ('name = "softer"', 'name = "softer"\nseed = 3', "seed has no effect on the mode"),
        ('["transferred", "rv"]', '["me", "rv"]', r"no step uses 'transferred', .*'softer': name it"),
        ('sd = "c.safetensors"', 'sd = "c.safetensors"\nx = "b.safetensors"', r"mine\.toml: no step uses 'x', and the"),
        ('["transferred", "rv"]', '["transferred"]', r"weighted-sum is .* it takes 2 models, not 1"),
    ],
)
def test_recipes_that_are_refused(
    old: str, new: str, told: str, files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.safetensors").symlink_to(files["sd1"][name])
    (tmp_path / "mine.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(MaquetteError, match=told):
        maquette.blend([], tmp_path / "x.safetensors", recipe=tmp_path / "mine.toml")


def test_the_family_tree_over_generations(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b, c = (files["sd1"][name] for name in "abc")
    maquette.blend([a, b], tmp_path / "child.safetensors", alpha=0.4)
    maquette.blend([tmp_path / "child.safetensors", c, a], tmp_path / "grandchild.safetensors", mode="add-difference")
    metadata = safetensors.read_metadata(tmp_path / "grandchild.safetensors")
    known = json.loads(metadata["sd_merge_models"])
    assert set(known) == {safetensors.file_sha256(path) for path in (a, b, c, tmp_path / "child.safetensors")}
    assert metadata["modelspec.merged_from"] == f"child.safetensors, {c.name}, {a.name}"
    tree = maquette.inspect(tmp_path / "grandchild.safetensors", hashes=False).family_tree
    child, digits = safetensors.file_sha256(tmp_path / "child.safetensors")[:10], safetensors.file_sha256(b)[:10]
    assert tree[:2] == ["add-difference, multiplier 1.0", f"  A: child.safetensors ({child})"]
    assert tree[2] == "    weighted-sum, multiplier 0.4" and f"      B: {b.name} ({digits})" in tree


def test_refusals(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b, other = files["sd1"]["a"], files["sd1"]["b"], files["sdxl"]["a"]
    out = tmp_path / "x.safetensors"
    with pytest.raises(
        MaquetteError, match=r"is Stable Diffusion 1, .* is Stable Diffusion XL: only models of one kind"
    ):
        maquette.blend([a, other], out)
    with pytest.raises(MaquetteError, match="is what is read; choose another name"):
        maquette.blend([a, b], a)
    with pytest.raises(MaquetteError, match=r"add-difference is A . α .B − C.: it takes 3 models, not 2"):
        maquette.blend([a, b], out, mode="add-difference")
    with pytest.raises(MaquetteError, match="has no beta"):
        maquette.blend([a, b], out, beta=0.5)
    for options, told in (
        ({"density": 0.2}, "density has no effect on the mode weighted-sum"),
        ({"mode": "ties", "seed": 1}, "seed has no effect on the mode ties"),
        ({"mode": "dare", "spread": 0.2}, "spread has no effect on the mode dare"),
        ({"blocks": "GRAD_V", "alpha": 0.3}, "alpha has no effect beside blocks"),
        ({"recipe": out, "alpha": 0.3}, "alpha has no effect beside a recipe, whose steps have their own"),
    ):
        with pytest.raises(MaquetteError, match=told):
            maquette.blend([] if "recipe" in options else [a, b], out, **options)
    with pytest.raises(MaquetteError, match="must end in"):
        maquette.blend([a, b], tmp_path / "x.bin")
    with pytest.raises(MaquetteError, match="takes 17 or 26"):
        maquette.blend([a, b], out, blocks="1,2,3")
    out.write_text("mine")
    with pytest.raises(MaquetteError, match="exists already"):
        maquette.blend([a, b], out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("mode", ["weighted-sum", "ties", "median"])
def test_damaged_inputs_are_named(mode: str, files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    model = checkpoint.read(files["sd1"]["b"])
    weight = model.parts["unet"]["conv_in.weight"].clone()
    weight[-1, 0, 0, 0] = float("nan")
    model.parts["unet"]["conv_in.weight"] = weight
    save.write_single_file(model, tmp_path / "broken.safetensors")
    sources = [files["sd1"]["a"], tmp_path / "broken.safetensors", files["sd1"]["c"]][: MODES[mode].models]
    with pytest.raises(MaquetteError, match=r"broken\.safetensors holds NaN or infinite .*unet: conv_in\.weight"):
        maquette.blend(sources, tmp_path / "x.safetensors", mode=mode)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


def test_numbers_that_the_files_type_cannot_hold(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    model = checkpoint.read(files["sd1"]["b"])
    model.parts["unet"]["conv_in.bias"] = torch.full((32,), 3e5)
    save.write_single_file(model, tmp_path / "large.safetensors")
    with pytest.raises(
        MaquetteError, match=r"unet: conv_in\.bias would hold numbers beyond 65504, the most in float16"
    ):
        maquette.blend([files["sd1"]["a"], tmp_path / "large.safetensors"], tmp_path / "x.safetensors", dtype="fp16")
    maquette.blend([files["sd1"]["a"], tmp_path / "large.safetensors"], tmp_path / "x.safetensors", dtype="bf16")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16])
def test_narrow_inputs(dtype: torch.dtype, files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    for name in "ab":
        save.write_single_file(checkpoint.read(files["sd1"][name]), tmp_path / f"{name}.safetensors", dtype)
    a, b = (numbers(tmp_path / f"{name}.safetensors") for name in "ab")
    maquette.blend([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "x.safetensors", dtype="fp32")
    maquette.blend([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "own.safetensors")
    wide, own = tensors(tmp_path / "x.safetensors"), tensors(tmp_path / "own.safetensors")
    for key in a:
        assert torch.allclose(wide[key].double(), (a[key] + b[key]) / 2, atol=1e-7)
        assert torch.equal(own[key], wide[key].to(own[key].dtype))
    assert own["unet", "conv_in.weight"].dtype == dtype


def test_double_precision_where_asked(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    a, b = files["sd1"]["a"], files["sd1"]["b"]
    heard: list[dict[str, Any]] = []

    def listen(event: Any) -> None:
        heard.append(event.data) if event.kind == "progress" else None

    stage.run(
        stage.BlendConfig.parse(
            {"models": [a, b], "out": tmp_path / "x.safetensors", "precision": "fp64", "alpha": 0.3, "threads": 1},
            "blend",
        ),
        listen,
    )
    first, second = numbers(a), numbers(b)
    for key, tensor in tensors(tmp_path / "x.safetensors").items():
        assert torch.equal(tensor, torch.lerp(first[key], second[key], 0.3).float())
    assert heard[-1]["done"] == heard[-1]["of"] and heard[-1]["gb_per_second"] > 0 and heard[-1]["unit"] == "MB"


def test_what_models_lack(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    model = checkpoint.read(files["sd1"]["b"])
    del model.parts["vae"], model.configs["vae"]
    save.write_single_file(model, tmp_path / "no-vae.safetensors")
    result = maquette.blend([files["sd1"]["a"], tmp_path / "no-vae.safetensors"], tmp_path / "x.safetensors")
    assert any("has no vae: that of" in warning for warning in result.warnings)
    expected, found = tensors(files["sd1"]["a"]), tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in found if key[0] == "vae")


def test_averaged_weights_are_left_out(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    model = checkpoint.read(files["sd1"]["a"])
    model.extras["model_ema.decay"] = torch.tensor(0.9)
    model.extras["model_ema.diffusion_modelx"] = torch.zeros(3)
    save.write_single_file(model, tmp_path / "ema.safetensors")
    result = maquette.blend([tmp_path / "ema.safetensors", files["sd1"]["b"]], tmp_path / "x.safetensors")
    assert any("averaged weights (EMA)" in warning for warning in result.warnings)
    assert not any(name.startswith("model_ema") for name in safetensors.load(tmp_path / "x.safetensors"))
