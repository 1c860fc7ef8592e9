"""Textual inversion: the vectors' table, the tokens that call them, and what a run with them learns and writes."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from maquette import adapters, families, methods
from maquette.adapters import embeddings
from maquette.config import TrainConfig
from maquette.core.vocabulary import ExtendedEmbedding, ExtendedTokenizer
from maquette.errors import MaquetteError
from maquette.formats import safetensors
from maquette.methods.base import MethodSpec
from maquette.prompts.encode import split_chunks
from maquette.sampling.apply_embeddings import apply_embeddings, embedding_files
from maquette.sampling.apply_loras import apply_loras
from maquette.stages import train
from maquette.stages.generate import GenerateConfig
from maquette.stages.generate import run as generate


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(6, 3)


def attached(tokens: int = 4) -> tuple[Holder, Any]:
    holder = Holder().requires_grad_(False)
    spec = MethodSpec(tokens=tokens, initial_tokens={"emb_params": [2, 5, 1]})
    return holder, methods.attach("textual-inversion", {"emb_params": (holder, "token_embedding")}, spec)


def test_the_vectors_begin_as_the_word_again_and_again() -> None:
    holder, made = attached()
    assert torch.equal(made.state()["emb_params"], holder.token_embedding.table.weight[[2, 5, 1, 2]])
    assert torch.equal(made.delta("emb_params"), torch.zeros(4, 3))


def test_ids_behind_the_table_are_the_vectors_and_only_those_learn() -> None:
    holder, made = attached()
    ids = torch.tensor([[0, 6, 5], [9, 9, 1]])
    seen = holder.token_embedding(ids)
    table, vectors = holder.token_embedding.table.weight, holder.token_embedding.vectors
    assert torch.equal(seen[0], torch.stack([table[0], vectors[0], table[5]]))
    seen.sum().backward()
    assert vectors.grad is not None and table.grad is None
    assert vectors.grad.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [2.0] * 3]
    assert made.parameter_groups() == {"embedding": [vectors]}


def test_gradient_is_that_of_finite_differences() -> None:
    table = nn.Embedding(5, 3).double().requires_grad_(False)
    vectors = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    ids = torch.tensor([[1, 5, 6, 5]])

    def f(v: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(ExtendedEmbedding(table, vectors), {"vectors": v}, (ids,)).sin()

    assert torch.autograd.gradcheck(f, vectors)


def test_detach_and_suspension_put_the_very_table_back() -> None:
    holder = Holder().requires_grad_(False)
    before, weight = holder.token_embedding, holder.token_embedding.weight.clone()
    spec = MethodSpec(tokens=2, initial_tokens={"emb_params": [0]})
    made = methods.attach("textual-inversion", {"emb_params": (holder, "token_embedding")}, spec)
    with made.suspended():
        assert holder.token_embedding is before
    assert isinstance(holder.token_embedding, ExtendedEmbedding)
    made.detach()
    assert holder.token_embedding is before and torch.equal(before.weight, weight)


def test_state_round_trips_and_another_number_of_vectors_is_refused() -> None:
    _, made = attached()
    state = {"emb_params": torch.randn(4, 3)}
    made.load_state(state)
    assert torch.equal(made.state()["emb_params"], state["emb_params"])
    with pytest.raises(MaquetteError, match="does not fit"):
        made.load_state({"emb_params": torch.randn(3, 3)})
    with pytest.raises(MaquetteError, match="clip_l"):
        made.load_state({"clip_l": torch.randn(4, 3)})


def test_names_are_found_by_their_tokens_the_longest_first() -> None:
    base = families.load("pocket")
    plain, size = base.tokenizers[0], 100_000
    tokenizer = ExtendedTokenizer(plain, size, {"zkw": 1, "zkw robot": 3})
    a, cat = plain.encode("a")[0], plain.encode("cat")[0]
    assert tokenizer.encode("a ZKW Robot cat") == [a, size + 1, size + 2, size + 3, cat]
    assert tokenizer.encode("zkw cat") == [size, cat]
    assert [tokenizer.span(t) for t in (size + 1, size, a)] == [3, 1, 1]
    assert tokenizer.mentions_placeholder("a zkw robot") and not tokenizer.mentions_placeholder("a robot")
    assert len(tokenizer.window("zkw robot " * 40)) == 77


def test_an_embedding_never_straddles_two_chunks() -> None:
    tokenizer = ExtendedTokenizer(families.load("pocket").tokenizers[0], 100_000, {"zkw": 8})
    chunks = split_chunks([["cat " * 70 + "zkw dog", 1.0]], tokenizer)
    assert [len(chunk.tokens) for chunk in chunks] == [70, 9]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, colour in enumerate([(220, 40, 40), (50, 80, 220), (50, 170, 70)]):
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a photo of zkw disc")
    return folder


def config(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    small = {"subject": "zkw disc", "sample_prompts": [], "batch_size": 2, "steps": 3, "rank": 2, "dtype": "fp32"}
    own = {"photos": photos, "out": out, "method": "textual-inversion", "num_vectors": 3}
    return TrainConfig.parse(own | small | changes)


def test_a_run_writes_an_embedding_that_generate_calls_by_file_name(photos: Path, tmp_path: Path) -> None:
    prompts = ["a photo of zkw disc"]
    result = train.run(config(photos, tmp_path / "my-disc", sample_prompts=prompts, sample_steps=2))
    assert result.file
    header = safetensors.read_header(Path(result.file))
    assert set(header.tensors) == {"emb_params"} and Path(result.file).stat().st_size < 100_000
    assert header.metadata["modelspec.architecture"].endswith("/textual-inversion")
    assert TrainConfig.read(tmp_path / "my-disc/run.toml").min_snr_gamma == 0  # which others begin with at 5
    learned, base = embeddings.load(result.file), families.load("pocket")
    begun = base.text_encoders[0].embeddings.token_embedding.weight[base.tokenizers[0].encode("disc")]
    moved = (learned.vectors[0] - begun[torch.arange(3) % len(begun)]).abs()
    assert learned.name == "my-disc" and len(learned) == 3 and 0 < moved.max() <= 0.05
    how = {"steps": 2, "seed": 1, "sampler": "DDIM", "out": tmp_path / "out"}
    named = generate(GenerateConfig(prompt="a photo of my-disc", embedding_dir=tmp_path / "my-disc", **how))
    sample = Image.open(tmp_path / "my-disc/samples/000003/0.png")
    assert np.abs(np.asarray(named.images[0], int) - np.asarray(sample, int)).max() <= 1
    unnamed = generate(GenerateConfig(prompt="a photo of my-disc", embedding_dir=photos, **how))
    assert np.abs(np.asarray(unnamed.images[0], int) - np.asarray(sample, int)).max() > 1
    assert embedding_files(base, ["a photo of a disc"], tmp_path / "my-disc") == {}


def test_the_base_is_untouched_and_other_prompts_are_the_bases_own(photos: Path, tmp_path: Path) -> None:
    base = families.load("pocket")
    before = base.encode_text(["a photo of a cat"]).tokens
    word = embeddings.Embedding("zkw", (torch.randn(2, base.text_encoders[0].config.hidden_size),), "pocket")
    plain = base.encode_text(["zkw"]).tokens
    with apply_embeddings(base, [word]):
        assert torch.equal(base.encode_text(["a photo of a cat"]).tokens, before)
        assert not torch.equal(base.encode_text(["zkw"]).tokens, plain)
        again = embeddings.Embedding("qqq", word.vectors, "pocket")
        with apply_embeddings(base, [again]):
            assert torch.equal(base.encode_text(["qqq"]).tokens, base.encode_text(["zkw"]).tokens)
    assert torch.equal(base.encode_text(["zkw"]).tokens, plain)
    with (
        pytest.raises(MaquetteError, match="another kind of base"),
        apply_embeddings(base, [embeddings.Embedding("zkw", (torch.zeros(2, 768),), "sd1")]),
    ):
        pass


@pytest.mark.parametrize("method", ["textual-inversion", "pivotal"])
def test_stopped_and_resumed_is_byte_identical(method: str, photos: Path, tmp_path: Path) -> None:
    settings = {"method": method, "caption_dropout": 0.3}
    whole = train.run(config(photos, tmp_path / "a" / "disc", **settings))
    cancel = threading.Event()
    cancel.set()
    train.run(config(photos, tmp_path / "b" / "disc", **settings), cancel=cancel)
    resumed = train.resume(tmp_path / "b" / "disc")
    assert whole.file and resumed.file
    assert Path(whole.file).read_bytes() == Path(resumed.file).read_bytes()


def test_pivotal_tuning_keeps_lora_and_word_in_one_file(photos: Path, tmp_path: Path) -> None:
    result = train.run(config(photos, tmp_path / "disc", method="pivotal", prior_preservation=True))
    assert result.file
    keys = set(safetensors.read_header(Path(result.file)).tensors)
    assert "bundle_emb.zkw disc.string_to_param.*" in keys and any(key.startswith("lora_unet_") for key in keys)
    adapter = adapters.load(result.file)
    assert [e.name for e in adapter.embeddings] == ["zkw disc"] and len(adapter.embeddings[0]) == 3
    adapter.save(tmp_path / "again.safetensors", dtype=torch.float16)
    assert set(safetensors.read_header(tmp_path / "again.safetensors").tensors) == keys
    [word] = adapter.save(tmp_path / "other.safetensors", "diffusers")
    assert word.name == "other-zkw-disc.safetensors" and embeddings.load(word).name == "zkw disc"
    assert torch.equal(embeddings.load(word).vectors[0], adapter.embeddings[0].vectors[0].float())
    base = families.load("pocket")
    plain = base.encode_text(["a zkw disc"]).tokens
    with apply_loras(base, [(adapter, 1.0, 1.0)]):
        assert not torch.equal(base.encode_text(["a zkw disc"]).tokens, plain)
    assert torch.equal(base.encode_text(["a zkw disc"]).tokens, plain)


def test_forms_of_other_programs(tmp_path: Path) -> None:
    one = embeddings.Embedding("<me>", (torch.randn(2, 768),), "sd1")
    embeddings.save(one, tmp_path / "d.safetensors", "diffusers")
    assert set(safetensors.load(tmp_path / "d.safetensors")) == {"<me>"}
    assert embeddings.load(tmp_path / "d.safetensors").name == "<me>"
    two = embeddings.Embedding("me", (torch.randn(2, 768), torch.randn(2, 1280)), "sdxl")
    embeddings.save(two, tmp_path / "x.safetensors")
    found = embeddings.load(tmp_path / "x.safetensors")
    assert set(safetensors.load(tmp_path / "x.safetensors")) == {"clip_l", "clip_g"} and found.family == "sdxl"
    assert torch.equal(found.vectors[1], two.vectors[1])


def test_what_an_embedding_cannot_do_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="changes nothing but its own"):
        config(photos, tmp_path / "a", prior_preservation=True)
    with pytest.raises(MaquetteError, match="no caption says it"):
        train.run(config(photos, tmp_path / "b", subject="zkw cube"))
