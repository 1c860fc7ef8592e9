"""Files of weights: safetensors and PyTorch pickles, made by their structure and then damaged."""

from __future__ import annotations

import io
import math
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import nasty

_DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "C64": 8, "F8_E4M3": 1, "I32": 4}
_LAYERS = (
    "lora_unet_down_blocks_1_attentions_0_proj_in",
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "unet.mid_block.attentions.0.proj_in",
    "base_model.model.unet.conv_in",
    "lora_unet_x",
    "transformer.a",
    "diffusion_model.middle_block.1.proj_in",
    "lora_unet_down_blocks_99999_attentions_0_proj_in",
)
_PARTS = (
    "lora_down.weight",
    "lora_up.weight",
    "alpha",
    "lora_A.weight",
    "lora_B.weight",
    "lora_mid.weight",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "lokr_w1",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "dora_scale",
    "scale",
    "oft_blocks",
    "diff",
    "on_input",
    "weight",
    "bias",
    "a1.weight",
    "lora_magnitude_vector",
)
_SIDES = (0, 1, 2, 3, 4, 8, 320)
_METADATA = (
    "ss_tag_frequency",
    "modelspec.trigger_phrase",
    "lora_adapter_metadata",
    "ss_output_name",
    "ss_network_args",
    "format",
    "modelspec.prediction_type",
    "maquette.configuration",
    "ss_dataset_dirs",
)


def names(rng: random.Random) -> list[str]:
    """Names of tensors: mostly those of an adapter, with parts that do not belong together."""
    chosen = [f"{rng.choice(_LAYERS)}.{rng.choice(_PARTS)}" for _ in range(rng.randint(0, 8))]
    if rng.random() < 0.3:
        chosen += rng.sample(
            ["emb_params", "clip_l", "clip_g", "string_to_param.*", "model.diffusion_model.x", "a" * 2000], 2
        )
    if rng.random() < 0.2:
        chosen.append(nasty.text(rng))
    return list(dict.fromkeys(chosen))


def _shape(rng: random.Random) -> list[int]:
    sides = [rng.choice(_SIDES) for _ in range(rng.choice((0, 1, 2, 2, 2, 4, 5)))]
    return sides if math.prod(sides) <= 20_000 else [2, 2]


def adapter(rng: random.Random) -> dict[str, list[int]]:
    """Shapes of the parts of one or two layers that belong together, now and then one that does not fit."""
    made: dict[str, list[int]] = {}
    for layer in rng.sample(_LAYERS, rng.choice((1, 1, 2))):
        rank, inner, outer = rng.choice((1, 2, 4)), rng.choice((320, 8)), rng.choice((320, 4))
        kinds: tuple[dict[str, list[int]], ...] = (
            {"lora_down.weight": [rank, inner], "lora_up.weight": [outer, rank], "alpha": []},
            {"lora_A.weight": [rank, inner], "lora_B.weight": [outer, rank]},
            {"lora_down.weight": [rank, inner, 1, 1], "lora_up.weight": [outer, rank, 1, 1], "dora_scale": [outer, 1]},
            {
                "hada_w1_a": [outer, rank],
                "hada_w1_b": [rank, inner],
                "hada_w2_a": [outer, rank],
                "hada_w2_b": [rank, inner],
            },
            {"lokr_w1": [4, 4], "lokr_w2": [outer // 4, inner // 4], "alpha": []},
            {"oft_blocks": [4, 2, 2], "alpha": []},
            {"diff": [outer, inner], "diff_b": [outer]},
            {"weight": [outer], "on_input": []},
        )
        parts = dict(rng.choice(kinds))
        if rng.random() < 0.2:
            parts[rng.choice((*parts, *_PARTS))] = _shape(rng)
        made |= {f"{layer}.{part}": shape for part, shape in parts.items()}
    return made


def safetensors_bytes(rng: random.Random) -> bytes:
    """A file whose header tells the truth, or nearly."""
    header: dict[str, Any] = {}
    body = bytearray()
    tensors = adapter(rng) if rng.random() < 0.7 else {name: _shape(rng) for name in names(rng)}
    for name, shape in tensors.items():
        dtype = "F32" if rng.random() < 0.8 else rng.choice(list(_DTYPES))
        size = _DTYPES[dtype] * math.prod(shape)
        filler = rng.choice((b"\0", b"\x3c", b"\x3c", b"\x3c", b"\xff", b"\x7f", None))
        data = rng.randbytes(size) if filler is None else filler * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + size]}
        body += data
    if rng.random() < 0.5:
        told = {rng.choice(_METADATA): nasty.as_json(nasty.value(rng)) for _ in range(rng.randint(0, 3))}
        header["__metadata__"] = told | ({nasty.text(rng): nasty.text(rng)} if rng.random() < 0.3 else {})
    if rng.random() < 0.2:
        header = nasty.changed(rng, header)
    raw = nasty.as_json(header).encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    whole = len(raw).to_bytes(8, "little") + raw + bytes(body)
    return nasty.damaged(rng, whole) if rng.random() < 0.3 else whole


_GLOBALS = (
    b"torch._utils\n_rebuild_tensor_v2",
    b"torch\nFloatStorage",
    b"collections\nOrderedDict",
    b"os\nsystem",
    b"builtins\nset",
    b"builtins\neval",
    b"torch._utils\n_rebuild_parameter",
    b"numpy\ndtype",
    b"torch\nSize",
    b"torch._utils\n_rebuild_tensor_v3",
    b"_codecs\nencode",
    b"torch.storage\nUntypedStorage",
)


def _instructions(rng: random.Random) -> bytes:
    """A list of instructions that is nearly a sensible one: containers, memo, globals, tensors."""
    made = bytearray(b"\x80\x02")
    for _ in range(rng.randint(1, 60)):
        act = rng.randrange(20)
        if act < 5:
            made += rng.choice((b"}", b"]", b")", b"N", b"(", b"\x88", b"\x89"))
        elif act < 7:
            data = nasty.text(rng).encode("utf-8", "surrogatepass")
            made += b"X" + struct.pack("<I", len(data)) + data
        elif act < 9:
            number = rng.choice((0, 1, 2, -1, 255, 1 << 40, 1 << 63, 1 << 100))
            made += b"\x8a\x10" + number.to_bytes(16, "little", signed=True)
        elif act < 10:
            made += b"c" + rng.choice(_GLOBALS) + b"\n"
        elif act < 13:
            made += rng.choice((b"R", b"\x85", b"\x86", b"\x87", b"t", b"\x81", b"b", b"Q"))
        elif act < 15:
            made += rng.choice((b"a", b"e", b"s", b"u", b"d", b"l"))
        elif act < 17:
            made += rng.choice((b"q", b"h")) + bytes([rng.randrange(4)])
        elif act < 18:
            made += rng.choice((b"\x85", b"2\x86", b"2", b"0", b"(t", b"}")) * rng.choice((1, 3, 60, 3000))
        else:
            made += _tensor(rng)
    return bytes(made + b".")


def _number(number: int) -> bytes:
    return b"\x8a\x08" + (number & (1 << 63) - 1).to_bytes(8, "little")


def _tensor(rng: random.Random) -> bytes:
    """The instructions of one tensor under a name, with any numbers in it."""
    sides = [rng.choice((0, 1, 2, 4, 1 << 40)) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    steps = [rng.choice((0, 1, 2, 1 << 30)) for _ in sides]
    kind = rng.choice((b"FloatStorage", b"HalfStorage", b"LongStorage", b"BoolStorage", b"Evil"))
    where = b"(X\7\0\0\0storagectorch\n" + kind + b"\nX\1\0\0\0" + rng.choice((b"0", b"1", b"/")) + b"X\3\0\0\0cpu"
    where += _number(rng.choice((0, 2, 16, 1 << 40))) + b"tQ"
    numbers = _number(rng.choice((0, 0, 1, 1 << 50)))
    numbers += b"(" + b"".join(map(_number, sides)) + b"t(" + b"".join(map(_number, steps)) + b"t"
    name = rng.choice((b"a", rng.choice(_LAYERS).encode() + b".lora_up.weight"))
    label = b"X" + struct.pack("<I", len(name)) + name
    return label + b"ctorch._utils\n_rebuild_tensor_v2\n(" + where + numbers + b"\x89NtRs"


def _whole_file(rng: random.Random) -> bytes:
    tensors = {name: torch.zeros([side % 5 for side in _shape(rng)]) for name in names(rng)}
    content: Any = rng.choice((tensors, {"state_dict": tensors}, {"string_to_param": {"*": torch.ones(2, 768)}}))
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.6)
    return buffer.getvalue()


def pickle_bytes(rng: random.Random) -> bytes:
    """A .ckpt: one that PyTorch wrote, or an archive around instructions of ours; then perhaps damaged."""
    if rng.random() < 0.4:
        return nasty.damaged(rng, _whole_file(rng))
    made = nasty.damaged(rng, _instructions(rng))
    if rng.random() < 0.2:
        magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
        return magic + made + b"\x80\x02]X\1\0\0\0" + b"0a." + (2).to_bytes(8, "little") + bytes(8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", made)
        archive.writestr("a/data/0", bytes(64))
        if rng.random() < 0.1:
            archive.writestr(
                rng.choice(("a/byteorder", "a/constants.pkl", "b/data.pkl", "a/data/1")),
                nasty.text(rng)[:50].encode("utf-8", "replace"),
            )
    return nasty.damaged(rng, buffer.getvalue()) if rng.random() < 0.3 else buffer.getvalue()


def prepare() -> None:
    """Build what is built once in a process: the networks whose layers adapters may name."""
    from maquette.families.named_layers import layer_names

    for family in ("sd1", "sd2", "sdxl", "pocket"):
        layer_names(family)


def _reading(path: Path, to: str) -> Callable[[], object]:
    def read() -> None:
        from maquette.stages import convert, inspect

        result = inspect.run(inspect.InspectConfig(path=path))
        if result.kind == "lora":
            convert.run(convert.ConvertConfig(source=path, to=to, out=path.parent / "out.safetensors"))  # type: ignore[arg-type]

    return read


def safetensors_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "a.safetensors"
    path.write_bytes(safetensors_bytes(rng))
    return _reading(path, rng.choice(("kohya", "diffusers")))


def pickle_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "a.ckpt"
    path.write_bytes(pickle_bytes(rng))
    return _reading(path, rng.choice(("kohya", "diffusers")))
