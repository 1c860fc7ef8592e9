"""LoRAs in checkpoints: merged is prompted, for every kind, family and container; PEFT, LyCORIS and diffusers agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import maquette
from maquette import adapters, families
from maquette.adapters.embeddings import Embedding
from maquette.adapters.file import Adapter, AdapterModule
from maquette.config.weights import MergeConfig
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.formats import safetensors
from maquette.sampling.apply_loras import apply_loras
from maquette.stages import lora_option
from maquette.stages.merge import run as run_merge
from maquette.weights import stream
from tests.families import tiny
from tests.weights.narrow import flat, numbers, with_few_words

FAMILIES = ("sd1", "sd2", "sdxl")
RANK = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        whole = tiny.write_folder(root / f"{family}-whole", family)
        save.write_folder(with_few_words(checkpoint.read(whole)), root / family)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="module")
def files(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("files")
    for family, folder in folders.items():
        save.write_single_file(checkpoint.read(folder), root / f"{family}.safetensors")
    return {family: root / f"{family}.safetensors" for family in folders}


def factors_of(kind: str, weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Random factors of a kind for a layer's weight."""

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    out, inner, *kernel = weight.shape
    ones = [1] * len(kernel)
    lora = {
        "lora_down.weight": random(RANK, inner, *kernel),
        "lora_up.weight": random(out, RANK, *ones),
        "alpha": torch.tensor(2.0),
    }
    if kind == "dora":
        return lora | {"dora_scale": 1 + random(out, 1, *ones).abs()}
    if kind == "loha":
        flat_inner = inner * torch.Size(kernel).numel()
        pair = {f"hada_w{i}_a": random(out, RANK) for i in (1, 2)}
        return pair | {f"hada_w{i}_b": random(RANK, flat_inner) for i in (1, 2)} | {"alpha": torch.tensor(2.0)}
    if kind == "lokr":
        return {"lokr_w1": random(2, 2), "lokr_w2": random(out // 2, inner // 2, *kernel)}
    return {"diff": random(*weight.shape)} if kind == "full" else lora


LAYERS = ("attn1.to_q", "ff.net.0.proj", "proj_in", "mlp.fc1", "resnets.0.conv1", "conv_out")


def adapter_for(path: Path, kind: str, seed: int = 0) -> Adapter:
    """A random adapter on linear layers, 1 x 1 and 3 x 3 convolutions and text encoders of a model."""
    model = stream.open_model(path)
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name, (part, layer) in stream.layers(model).items():
        if name.endswith(LAYERS) and not (kind == "lokr" and name.endswith("conv_out")):
            weight = model.parts[part][f"{layer}.weight"]
            modules[name] = AdapterModule(factors_of(kind, weight, generator))
    norm = next(name for name in stream.layers(model) if name.endswith("norm1"))
    part, layer = stream.layers(model)[norm]
    width = model.parts[part][f"{layer}.weight"].numel()
    modules[norm] = AdapterModule(
        {"w_norm": torch.randn(width, generator=generator), "b_norm": torch.randn(width, generator=generator)}
    )
    version = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[model.spec.name]
    return Adapter(model.spec.name, kind, modules, {"ss_base_model_version": version})


def write(adapter: Adapter, path: Path) -> Path:
    adapter.save(path)
    return path


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr", "full"])
def test_every_kind_is_merged_as_it_is_prompted(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    first = write(adapter_for(files["sd1"], kind), tmp_path / "one.safetensors")
    second = write(adapter_for(files["sd1"], "lora", 1), tmp_path / "two.safetensors")
    result = maquette.merge(files["sd1"], [f"{first}:0.8,te=0.5", f"{second}:-0.3"], tmp_path / "x.safetensors")
    base, merged = families.load(files["sd1"]), families.load(tmp_path / "x.safetensors")
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    loras = [(adapters.load(first), 0.5, 0.8), (adapters.load(second), -0.3, -0.3)]
    with apply_loras(base, loras):
        for network, other in [(base.unet, merged.unet), *zip(base.text_encoders, merged.text_encoders, strict=True)]:
            prompted, found = network.state_dict(), other.state_dict()
            assert all(torch.allclose(found[name], prompted[name], atol=1e-6) for name in prompted)
        moved = sum(not torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())
    assert moved > 10 and result.changed >= moved


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("out", ["x.safetensors", "x.ckpt", "x"])
def test_every_family_and_container(
    family: str, out: str, folders: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_for(files[family], "lora")
    lora = write(adapter, tmp_path / "lora.safetensors")
    base = folders[family] if out == "x" else files[family]
    maquette.merge(base, [f"{lora}:0.7"], tmp_path / out)
    expected, layers = numbers(files[family]), stream.layers(stream.open_model(files[family]))
    for name, module in adapter.modules.items():
        part, path = layers[name]
        if module.kind == "norm":
            expected[part, f"{path}.bias"] += 0.7 * module.factors["b_norm"].double()
            expected[part, f"{path}.weight"] += 0.7 * module.factors["w_norm"].double()
        else:
            up, down = (module.factors[f"lora_{end}.weight"].double() for end in ("up", "down"))
            change = (up.flatten(1) @ down.flatten(1)).reshape(expected[part, f"{path}.weight"].shape)
            expected[part, f"{path}.weight"] += 0.7 * 2 / RANK * change
    found = flat(checkpoint.read(tmp_path / out))
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[key].double(), expected[key], atol=2e-6) for key in found)


def test_a_base_of_eight_bits_keeps_the_change(files: dict[str, Path], tmp_path: Path) -> None:
    """Three bits of mantissa would round a small change away: what it changes becomes fp16, the rest stays."""
    narrow = {
        key: t.to(torch.float8_e4m3fn) if t.is_floating_point() and t.ndim > 1 else t
        for key, t in safetensors.load(files["sd1"]).items()
    }
    safetensors.save(narrow, tmp_path / "base.safetensors")
    adapter = adapter_for(files["sd1"], "lora")
    heard: list[dict[str, int]] = []
    config = MergeConfig.parse(
        {"base": tmp_path / "base.safetensors", "loras": [f"{write(adapter, tmp_path / 'l.safetensors')}:0.02"],
         "out": tmp_path / "x.safetensors"}, "merge")  # fmt: skip
    run_merge(config, lambda event: heard.append(event.data) if event.kind == "progress" else None)
    before, after = (checkpoint.read(tmp_path / f"{name}.safetensors").parts for name in ("base", "x"))
    changed = {name for name in adapter.modules if "text_model" not in name}
    assert changed
    for name in changed:
        part, _, path = name.partition(".")
        old, new = before[part][f"{path}.weight"], after[part][f"{path}.weight"]
        assert new.dtype == (torch.float16 if old.ndim > 1 else old.dtype)
        wanted = old.float() + 0.02 * adapter.delta(name, old.float())
        assert torch.allclose(new.float(), wanted, rtol=1e-3, atol=1e-6)
    assert after["vae"]["decoder.conv_in.weight"].dtype == torch.float8_e4m3fn
    assert heard[-1]["done"] <= heard[-1]["of"]


def test_double_precision_where_asked(files: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_for(files["sd1"], "lora")
    lora = write(adapter, tmp_path / "lora.safetensors")
    maquette.merge(files["sd1"], [f"{lora}:0.7"], tmp_path / "x.safetensors", precision="fp64")
    name = next(name for name in adapter.modules if name.endswith("attn1.to_q"))
    part, path = stream.layers(stream.open_model(files["sd1"]))[name]
    up, down = (adapter.modules[name].factors[f"lora_{end}.weight"].double() for end in ("up", "down"))
    exact = numbers(files["sd1"])[part, f"{path}.weight"] + 0.7 * (up @ down * (2 / RANK))
    found = flat(checkpoint.read(tmp_path / "x.safetensors"))[part, f"{path}.weight"]
    assert float((found.double() - exact).abs().max()) <= float(exact.abs().max()) * 2**-24


def test_block_weights(files: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_for(files["sd1"], "lora")
    lora = write(adapter, tmp_path / "lora.safetensors")
    blocks = ",".join(["0"] * 8 + ["1"] + ["0"] * 8)  # OUT03 alone
    maquette.merge(files["sd1"], [f"{lora}:1,lbw={blocks}"], tmp_path / "x.safetensors")
    before, after = flat(checkpoint.read(files["sd1"])), flat(checkpoint.read(tmp_path / "x.safetensors"))
    moved = {name for (part, name) in before if not torch.equal(before[part, name], after[part, name])}
    assert moved and all(name.startswith(("up_blocks.1.attentions.0", "up_blocks.1.resnets.0")) for name in moved)


@pytest.mark.parametrize("algo", ["lora", "loha", "lokr", "full"])
def test_lycoris_merges_the_same(algo: str, folders: dict[str, Path], files: dict[str, Path], tmp_path: Path) -> None:
    """At alpha = rank: otherwise LyCORIS 4.1's merge_to takes alpha / rank of LoHa and LoKr twice, its layers once."""
    from diffusers import UNet2DConditionModel
    from lycoris import create_lycoris

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(folders["sd1"] / "unet").requires_grad_(False)
    network = create_lycoris(
        unet, 1.0, linear_dim=4, linear_alpha=4, conv_dim=4, conv_alpha=4, algo=algo, preset="attn-mlp"
    )
    network.apply_to()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = {key.replace("lycoris_", "lora_unet_"): value.clone() for key, value in network.state_dict().items()}
    safetensors.save(state, tmp_path / "lycoris.safetensors", {"ss_base_model_version": "sd_v1"})
    network.restore()
    network.merge_to(0.8)
    maquette.merge(files["sd1"], [f"{tmp_path / 'lycoris.safetensors'}:0.8"], tmp_path / "x.safetensors")
    ours = checkpoint.read(tmp_path / "x.safetensors").parts["unet"]
    theirs = unet.state_dict()
    worst = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert worst < 1e-5
    base = checkpoint.read(files["sd1"]).parts["unet"]
    assert sum(not torch.equal(ours[name], base[name]) for name in ours) > 20


@pytest.mark.parametrize("dora", [False, True])
def test_peft_merges_the_same(dora: bool, folders: dict[str, Path], files: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(folders["sd1"] / "unet")
    targets = ["to_q", "to_v", "proj_in", "conv1"]
    wrapped = get_peft_model(unet, LoraConfig(r=4, lora_alpha=2, target_modules=targets, use_dora=dora))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter).abs()
    wrapped.save_pretrained(tmp_path / "peft")
    merged = wrapped.merge_and_unload().state_dict()
    maquette.merge(files["sd1"], [str(tmp_path / "peft")], tmp_path / "x.safetensors")
    ours = checkpoint.read(tmp_path / "x.safetensors").parts["unet"]
    assert max(float((ours[name] - merged[name]).abs().max()) for name in ours) < 1e-5


def test_diffusers_fuses_the_same_and_opens_the_result(
    folders: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    adapter = adapter_for(files["sd1"], "lora")
    adapter.modules = {
        name: module for name, module in adapter.modules.items() if module.kind != "norm" and name.startswith("unet.")
    }
    lora = write(adapter, tmp_path / "lora.safetensors")
    adapter.save(tmp_path / "theirs.safetensors", "diffusers")
    maquette.merge(folders["sd1"], [f"{lora}:0.6"], tmp_path / "merged")
    pipe = StableDiffusionPipeline.from_pretrained(
        folders["sd1"], safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    pipe.load_lora_weights(str(tmp_path / "theirs.safetensors"))
    pipe.fuse_lora(lora_scale=0.6)
    pipe.unload_lora_weights()
    opened = UNet2DConditionModel.from_pretrained(tmp_path / "merged" / "unet", local_files_only=True)
    theirs, ours = pipe.unet.state_dict(), opened.state_dict()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 64)
    with torch.no_grad():
        assert torch.allclose(opened(x, t, text).sample, pipe.unet(x, t, text).sample, atol=1e-4)


def test_words_lie_beside_the_model(files: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_for(files["sd1"], "lora")
    adapter.embeddings = [Embedding("zkw", (torch.randn(2, 64),), "sd1")]
    lora = write(adapter, tmp_path / "lora.safetensors")
    result = maquette.merge(files["sd1"], [str(lora)], tmp_path / "x.safetensors")
    assert [Path(word).name for word in result.words] == ["x-zkw.safetensors"]
    written = safetensors.load(tmp_path / "x-zkw.safetensors")
    assert torch.equal(written["emb_params"], adapter.embeddings[0].vectors[0])
    assert any("1 words came with the LoRAs" in warning for warning in result.warnings)
    with pytest.raises(MaquetteError, match=r"x-zkw\.safetensors, the file of the word 'zkw', exists already"):
        maquette.merge(files["sd1"], [str(lora)], tmp_path / "x.ckpt")


def test_refusals(files: dict[str, Path], tmp_path: Path) -> None:
    adapter, out = adapter_for(files["sd1"], "lora"), tmp_path / "x.safetensors"
    lora = write(adapter, tmp_path / "lora.safetensors")
    adapter.modules["lora_unet_down_blocks_9_attentions_0_proj_in"] = next(iter(adapter.modules.values()))
    odd = write(adapter, tmp_path / "odd.safetensors")
    with pytest.raises(MaquetteError, match=r"odd\.safetensors: 1 of its \d+ modules do not exist in .*--lossy"):
        maquette.merge(files["sd1"], [str(odd)], out)
    assert not out.exists()
    result = maquette.merge(files["sd1"], [str(odd)], out, lossy=True)
    assert any("1 modules are no layers of this base" in warning for warning in result.warnings)
    adapter.family = "sdxl"
    adapter.metadata["ss_base_model_version"] = "sdxl_base_v1-0"
    with pytest.raises(MaquetteError, match=r"exists already; choose another name"):
        maquette.merge(files["sd1"], [str(lora)], out)
    with pytest.raises(MaquetteError, match=r"is what is read"):
        maquette.merge(files["sd1"], [str(lora)], lora)
    xl = write(adapter_for(files["sdxl"], "lora"), tmp_path / "xl.safetensors")
    with pytest.raises(MaquetteError, match=r"xl\.safetensors is a LoRA for .*XL.*is Stable Diffusion 1"):
        maquette.merge(files["sd1"], [str(xl)], tmp_path / "y.safetensors")
    with pytest.raises(MaquetteError, match="name the base model"):
        maquette.merge(None, [str(lora)], tmp_path / "y.safetensors")
    for options in ({"lossy": True}, {"threads": 2}, {"precision": "fp64"}, {"half_vae": False}):
        with pytest.raises(MaquetteError, match=f"{min(options)} has no effect on a LoRA made of several"):
            maquette.merge(None, [str(lora)], tmp_path / "y.safetensors", to="lora", **options)
    with pytest.raises(MaquetteError, match="a rank is for --to lora"):
        maquette.merge(files["sd1"], [str(lora)], tmp_path / "y.safetensors", rank=4)


def test_several_loras_as_one(files: dict[str, Path], tmp_path: Path) -> None:
    one, two = adapter_for(files["sd1"], "lora"), adapter_for(files["sd1"], "lora", 1)
    paths = [write(one, tmp_path / "one.safetensors"), write(two, tmp_path / "two.safetensors")]
    maquette.merge(None, [f"{paths[0]}:0.8", f"{paths[1]}:0.5,te=0"], tmp_path / "both.safetensors", to="lora")
    both = adapters.load(tmp_path / "both.safetensors")
    for name in both.modules:
        second = 0.0 if name.startswith("text_encoder") else 0.5
        expected = 0.8 * one.delta(name) + second * two.delta(name)
        assert torch.allclose(both.delta(name), expected, atol=1e-5)


def test_where_it_comes_from(files: dict[str, Path], tmp_path: Path) -> None:
    lora = write(adapter_for(files["sd1"], "lora"), tmp_path / "lora.safetensors")
    maquette.merge(files["sd1"], [f"{lora}:0.8,te=0.5"], tmp_path / "x.safetensors")
    metadata = safetensors.read_metadata(tmp_path / "x.safetensors")
    base, own = safetensors.file_sha256(files["sd1"]), safetensors.file_sha256(lora)
    recipe, known = json.loads(metadata["sd_merge_recipe"]), json.loads(metadata["sd_merge_models"])
    assert recipe["primary_model_hash"] == base and recipe["loras"] == [{"hash": own, "weight": "te 0.5, unet 0.8"}]
    assert known[base]["name"] == "sd1.safetensors" and known[own]["kind"] == "lora"
    assert maquette.inspect(tmp_path / "x.safetensors", hashes=False).family_tree == [
        "merge LoRA",
        f"  A: sd1.safetensors ({base[:10]})",
        f"  LoRA: lora.safetensors ({own[:10]}), te 0.5, unet 0.8",
    ]


@pytest.mark.parametrize(
    ("text", "file", "te", "unet", "lbw"),
    [
        ("a.safetensors", "a.safetensors", 1, 1, ""),
        ("a.safetensors:0.8", "a.safetensors", 0.8, 0.8, ""),
        ("C:/x/a.safetensors:-0.5,te=0", "C:/x/a.safetensors", 0, -0.5, ""),
        ("a:unet=0.3", "a", 1, 0.3, ""),
        ("a:.8,lbw=1,0,0.5,te=0.2", "a", 0.2, 0.8, "1,0,0.5"),
        ("a:1,lbw=OUTALL", "a", 1, 1, "OUTALL"),
        ("C:/x/a.safetensors", "C:/x/a.safetensors", 1, 1, ""),
    ],
)
def test_how_loras_are_written(text: str, file: str, te: float, unet: float, lbw: str) -> None:
    assert lora_option.parse(text) == lora_option.LoraOption(Path(file), te, unet, lbw)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:0.8,what=1", "'what=1' has no meaning; write FILE"),
        ("a:0.8.1", "'0.8.1' is no number"),
        ("a:1000", "between -100 and 100"),
        ("a:1,0.5", "'0.5' has no meaning"),
        ("a:te=nan", "between -100 and 100"),
    ],
)
def test_how_they_are_not(text: str, told: str) -> None:
    with pytest.raises(MaquetteError, match=told):
        lora_option.parse(text)


@pytest.mark.parametrize("to", ["lora", "checkpoint"])
def test_a_merge_of_nothing_is_refused(tmp_path: Path, to: str) -> None:
    config = MergeConfig.parse(
        {"base": "pocket", "loras": ["a.safetensors:0", "b.safetensors:te=0,unet=0"], "to": to, "out": tmp_path / "x"}
    )
    with pytest.raises(MaquetteError, match=r"Every LoRA has the weight 0, so nothing would be merged; .*FILE:0\.8"):
        run_merge(config)
