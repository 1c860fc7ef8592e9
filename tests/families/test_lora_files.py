"""The tables of docs/lora-files.md: every ticked cell is run on a file made here, every "refused" is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

from maquette import adapters
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.families.sd.model import StableDiffusion
from maquette.families.sd.spec import SD1
from maquette.formats import keys, safetensors
from maquette.methods import attach
from maquette.methods.base import MethodSpec
from maquette.sampling.apply_loras import apply_loras
from maquette.sampling.lora_folder import find_loras
from maquette.stages.convert import ConvertConfig
from maquette.stages.convert import run as convert
from maquette.stages.inspect import InspectConfig
from maquette.stages.inspect import run as inspect
from maquette.training.attaching import load_initial_lora

DOCUMENT = Path(__file__).parents[2] / "docs" / "lora-files.md"
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET = (f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_out.0", f"{BLOCK}.attn2.to_k", f"{BLOCK}.ff.net.2",
        "mid_block.attentions.0.proj_in")  # fmt: skip
TEXT = ("encoder.layers.0.mlp.fc1", "encoder.layers.0.self_attn.q_proj")
CONV, NORM = "down_blocks.0.resnets.0.conv1", f"{BLOCK}.norm1"
RANK = 2
Delta = dict[str, Tensor]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    made = tiny.modules("sd1")
    return StableDiffusion(
        spec=SD1, network=made["unet"], vae=made["vae"], text_encoders=[made["text_encoder"]], tokenizers=[],
        scheduler_config={}, source="tiny", content_hash="",
    )  # fmt: skip


def layer(base: BaseModel, part: str, path: str) -> nn.Module:
    root = base.unet if part == "unet" else base.text_encoders[0]
    if part == "te" and not hasattr(root, "encoder"):
        root = root.text_model
    return root.get_submodule(path)


def joined(part: str, path: str) -> str:
    """Kohya's name, by hand."""
    return f"lora_{part}_{'text_model.' if part == 'te' else ''}{path}".replace(".", "_")


def named(part: str, path: str) -> str:
    """The layer's name here, by hand."""
    return f"unet.{path}" if part == "unet" else f"text_encoder.text_model.{path}"


def ldm(path: str) -> str:
    return keys.unet_to_ldm(path)


# Name of a row -> (part, path, "down" | "up" | "alpha") -> key; "" for what these files do not hold.
Namer = Callable[[str, str, str], str]


def parts(down: str, up: str, alpha: str = "alpha") -> dict[str, str]:
    return {"down": down, "up": up, "alpha": alpha}


KOHYA, AB = parts("lora_down.weight", "lora_up.weight"), parts("lora_A.weight", "lora_B.weight")


def _comfy(part: str, path: str) -> str:
    return f"diffusion_model.{ldm(path)}" if part == "unet" else f"text_encoders.clip_l.transformer.text_model.{path}"


def _dotted(part: str, path: str) -> str:
    return f"unet.{path}" if part == "unet" else f"text_encoder.text_model.{path}"


def _processor(part: str, path: str, what: str) -> str:
    match = re.fullmatch(r"(.*attn[12])\.(to_[qkv]|to_out)(\.0)?", path)
    return f"{match[1]}.processor.{match[2]}_lora.{what}.weight" if match and what != "alpha" else ""


def _of_2023(part: str, path: str, what: str) -> str:
    middle = "lora" if part == "unet" else "lora_linear_layer"
    return "" if what == "alpha" else f"{_dotted(part, path)}.{middle}.{what}.weight"


def _lycoris(part: str, path: str, what: str) -> str:
    return joined(part, path).replace("lora_unet_", "lycoris_").replace("lora_te_", "lycoris_") + "." + KOHYA[what]


def _te1(part: str, path: str) -> str:
    return f"lora_unet_{ldm(path)}".replace(".", "_") if part == "unet" else joined(part, path).replace("_te_", "_te1_")


DIALECTS: dict[str, Namer] = {
    "Kohya": lambda part, path, what: f"{joined(part, path)}.{KOHYA[what]}",
    "Kohya with LDM names and `lora_te1_` (SD1)": lambda part, path, what: f"{_te1(part, path)}.{KOHYA[what]}",
    "Kohya with `lora_A`, `lora_B`": lambda part, path, what: f"{joined(part, path)}.{AB[what]}",
    "Kohya's parts with dotted names": lambda part, path, what: f"{_dotted(part, path)}.{KOHYA[what]}",
    "ComfyUI, `lora_up`, `lora_down`": lambda part, path, what: (
        "" if what == "alpha" else f"{_comfy(part, path)}.{KOHYA[what]}"
    ),
    "ComfyUI, `lora_A`, `lora_B`": lambda part, path, what: f"{_comfy(part, path)}.{AB[what]}",
    "LDM paths": lambda part, path, what: f"{ldm(path)}.{AB[what]}" if part == "unet" else "",
    "diffusers": lambda part, path, what: "" if what == "alpha" else f"{_dotted(part, path)}.{AB[what]}",
    "diffusers of 2023": _of_2023,
    "diffusers' attention processors of 2023": _processor,
    "PEFT": lambda part, path, what: "" if what == "alpha" or part == "te" else f"base_model.model.{path}.{AB[what]}",
    "LyCORIS": _lycoris,
}


def write_dialect(base: BaseModel, name: str, folder: Path) -> tuple[Path, Delta]:
    """A LoRA in a dialect, and what it changes, by Kohya's names. Alpha is 1 where these files have alphas."""
    namer, tensors, expected = DIALECTS[name], {}, {}
    for index, (part, path) in enumerate([("unet", path) for path in UNET] + [("te", path) for path in TEXT]):
        if not namer(part, path, "down"):
            continue
        weight = layer(base, part, path).weight
        generator = torch.Generator().manual_seed(index)
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=generator)
        tensors |= {namer(part, path, "down"): down, namer(part, path, "up"): up}
        scale = 1.0
        if key := namer(part, path, "alpha"):
            tensors[key], scale = torch.tensor(1.0), 1 / RANK
        elif name == "PEFT":
            scale = 3 / RANK
        expected[named(part, path)] = scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    folder.mkdir()
    if name != "PEFT":
        safetensors.save(tensors, folder / "it.safetensors")
        return folder / "it.safetensors", expected
    (folder / "it").mkdir()
    safetensors.save(tensors, folder / "it" / "adapter_model.safetensors")
    (folder / "it" / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 3}))
    return folder / "it", expected


def factors(kind: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Random factors of a kind for a weight of this shape."""
    out, inner, *kernel = shape
    ones = [1] * len(kernel)
    torch.manual_seed(0)
    low = {"lora_down.weight": torch.randn(RANK, inner, *kernel), "lora_up.weight": torch.randn(out, RANK, *ones)}
    low["alpha"] = torch.tensor(1.0)
    flat = inner * int(torch.tensor(kernel).prod())
    made: dict[str, Callable[[], dict[str, Tensor]]] = {
        "LoRA": lambda: low,
        "LoCon": lambda: low,
        "DoRA per input": lambda: low | {"dora_scale": 1 + torch.rand(1, inner, *ones)},
        "DoRA per output": lambda: low | {"dora_scale": 1 + torch.rand(out, 1, *ones)},
        "LoHa": lambda: {
            f"hada_w{i}_{side}": torch.randn(*size)
            for i in (1, 2)
            for side, size in (("a", (out, 2)), ("b", (2, flat)))
        }
        | {"alpha": torch.tensor(1.0)},
        "LoKr": lambda: {"lokr_w1": torch.randn(2, 2), "lokr_w2": torch.randn(out // 2, inner // 2, *kernel)},
        "GLoRA": lambda: {
            "a1.weight": torch.randn(inner, RANK), "a2.weight": torch.randn(RANK, inner),
            "b1.weight": torch.randn(out, RANK), "b2.weight": torch.randn(RANK, inner, *kernel),
            "alpha": torch.tensor(1.0),
        },
        "IA3": lambda: {"weight": torch.randn(out), "on_input": torch.tensor(0)},
        "OFT": lambda: {"oft_blocks": 0.1 * torch.randn(out // 8, 8, 8), "alpha": torch.tensor(0.0)},
        "BOFT": lambda: {"oft_blocks": 0.1 * torch.randn(2, out // 8, 8, 8), "alpha": torch.tensor(0.0)},
        "full difference, norms, biases": lambda: {"diff": torch.randn(shape), "diff_b": torch.randn(out)},
    }  # fmt: skip
    return made[kind]()


METHODS = {"LoRA": "lora", "LoCon": "lora", "DoRA per input": "dora", "DoRA per output": "dora", "LoHa": "loha",
           "LoKr": "lokr"}  # fmt: skip


def write_kind(base: BaseModel, kind: str, folder: Path) -> tuple[Path, Delta]:
    """Kohya's names; linear layers, and for LoCon and full differences a convolution too."""
    paths = [UNET[0], UNET[3], *([CONV] if kind in ("LoCon", "full difference, norms, biases") else [])]
    tensors = {}
    for path in paths:
        made = factors(kind, tuple(layer(base, "unet", path).weight.shape))
        if layer(base, "unet", path).bias is None:
            made.pop("diff_b", None)
        tensors |= {f"{joined('unet', path)}.{part}": tensor for part, tensor in made.items()}
    if kind.startswith("full"):
        width = len(layer(base, "unet", NORM).weight)
        tensors |= {f"{joined('unet', NORM)}.{part}": torch.randn(width) for part in ("w_norm", "b_norm")}
        paths.append(NORM)
    folder.mkdir()
    safetensors.save(tensors, folder / "it.safetensors")
    adapter = adapters.load(folder / "it.safetensors")
    names = {named("unet", path): layer(base, "unet", path).weight for path in paths}
    return folder / "it.safetensors", {name: adapter.delta(name, weight) for name, weight in names.items()}


def check_inspect(base: BaseModel, file: Path, expected: Delta, **_: object) -> None:
    found = inspect(InspectConfig(path=file))
    assert found.kind == "lora" and found.lora is not None and not found.problems
    assert (found.family, found.lora.modules, found.lora.matched) == ("sd1", len(expected), len(expected))


def check_convert(base: BaseModel, file: Path, expected: Delta, kind: str = "", **_: object) -> None:
    """To real names of each program, with the same change."""
    out = file.parent / "kohya.safetensors"
    convert(ConvertConfig(source=file, to="kohya", out=out))
    kohyas = {name.replace("unet", "lora_unet", 1).replace("text_encoder", "lora_te", 1) for name in expected}
    assert {key.partition(".")[0] for key in safetensors.load(out)} == {name.replace(".", "_") for name in kohyas}
    targets = [out]
    if not kind:
        for to in ("diffusers", "peft"):
            targets.append(file.parent / f"{to}{'.safetensors' if to == 'diffusers' else ''}")
            convert(ConvertConfig(source=file, to=to, out=targets[-1]))
        names = {key.rpartition(".lora_")[0] for key in safetensors.load(file.parent / "diffusers.safetensors")}
        assert names <= {_dotted(part, path) for part, paths in (("unet", UNET), ("te", TEXT)) for path in paths}
        assert len(names) == len(expected)
    for target in targets:
        again = adapters.load(target)
        assert again.modules.keys() == expected.keys()
        for name, change in expected.items():
            found = again.delta(name, weights(base)[name]).reshape(change.shape)
            assert torch.allclose(found, change, atol=1e-5), name


def weights(base: BaseModel) -> Delta:
    paths = [("unet", path) for path in (*UNET, CONV, NORM)] + [("te", path) for path in TEXT]
    return {named(part, path): layer(base, part, path).weight for part, path in paths}


def check_generate(base: BaseModel, file: Path, expected: Delta, **_: object) -> None:
    before = {name: weight.clone() for name, weight in weights(base).items()}
    adapter = adapters.load(find_loras(["it"], file.parent)["it"])
    with apply_loras(base, [(adapter, 0.5, 0.5)]) as [applied]:
        assert (applied.matched, applied.unmatched) == (len(expected), [])
        for name, weight in weights(base).items():
            change = 0.5 * expected[name].reshape(weight.shape) if name in expected else 0
            assert torch.allclose(weight, before[name] + change, atol=1e-5), name


def check_train(base: BaseModel, file: Path, expected: Delta, kind: str = "") -> None:
    """load_initial_lora does what `from_lora` asks for, to freshly attached layers."""
    alphas = {module.alpha for module in adapters.load(file).modules.values()}
    holder, slots = nn.Module(), {}
    for name, weight in weights(base).items():
        if name not in expected or weight.ndim == 1:
            continue
        out, inner, *kernel = weight.shape
        made = nn.Conv2d(inner, out, kernel[0]) if kernel else nn.Linear(inner, out)
        made.weight.data = weight.data.clone()
        holder.add_module(attribute := name.replace(".", "_"), made.requires_grad_(False))
        slots[name] = (holder, attribute)
    alpha = next(iter(alphas)) or RANK
    rank, alpha = (10_000, 10_000) if kind == "LoKr" else (RANK, alpha)
    spec = MethodSpec(rank=rank, alpha=alpha, factor=2, magnitude_axis=0 if kind == "DoRA per output" else 1)
    attached = attach(METHODS.get(kind, "lora"), slots, spec)
    load_initial_lora(file, attached)
    for name, change in expected.items():
        assert torch.allclose(attached.delta(name).reshape(change.shape), change, atol=1e-5), name


CHECKS = {"inspect": check_inspect, "convert": check_convert, "generate": check_generate, "train": check_train}
Cell = tuple[str, str, str, str]


def cells() -> list[Cell]:
    """(table, row, command, what stands there) of every cell."""
    found = []
    header: list[str] = []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        columns = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if columns and columns[0] in ("names in the file", "kind of adapter", "read by", "written as"):
            header = columns
        elif columns and header[0] not in ("read by", "written as") and not set(line) <= set("|-"):
            for title, cell in zip(header[1:], columns[1:], strict=True):
                if title != "written by":
                    found.append((header[0], columns[0], title.split()[0], cell))
    return found


def test_the_tables_are_the_ones_that_are_tested() -> None:
    tables = ("names in the file", "kind of adapter")
    rows = {table: {row for name, row, *_ in cells() if name == table} for table in tables}
    assert rows["names in the file"] == set(DIALECTS)
    assert rows["kind of adapter"] >= set(METHODS) and len(cells()) == 4 * sum(map(len, rows.values()))


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: "-".join(cell[1:3]))
def test_every_cell(base: BaseModel, tmp_path: Path, cell: Cell) -> None:
    table, row, command, told = cell
    kind = row if table == "kind of adapter" else ""
    file, expected = (write_kind if kind else write_dialect)(base, row, tmp_path / "files")
    assert len(expected) >= 2 and all(bool(change.abs().max() > 1e-3) for change in expected.values())
    if told == "✓":
        CHECKS[command](base, file, expected, kind=kind)
        return
    assert told == "refused"
    with pytest.raises(MaquetteError, match=r"cannot begin this run: it (lacks|has)"):
        CHECKS[command](base, file, expected, kind=kind)
