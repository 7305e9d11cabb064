"""umT5 as GGUF in llama.cpp's layout: numbers, size, tokenizer, and what is told of files that lack one."""

from __future__ import annotations

import io
from pathlib import Path

import gguf
import pytest
import sentencepiece
import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from tests import tiny
from tests.wan_local.weights import packed_files
from tests.wan_local.weights.llama_files import write_umt5
from wan_local.encoders.text import TextEncoder
from wan_local.errors import ParameterMismatch, UnreadableWeights
from wan_local.weights import inspect, load_text_encoder

TEXTS = [
    "a red disc moves right",
    "a blue square turns and grows while it moves to the left",
    "  Ｆｕｌｌ  width “é” 猫 ﬁ",
]
IDS = torch.tensor([[5, 9, 30, 41, 7, 1]])
KINDS = ["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K"]


def trained(rule: str) -> bytes:
    found = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:2] * 20), model_writer=found, vocab_size=284, model_type="unigram", pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True, minloglevel=2, normalization_rule_name=rule,
    )  # fmt: skip
    return found.getvalue()


@pytest.fixture(scope="module")
def sentences() -> bytes:
    """Of the kind umT5's is: unigrams, NFKC, pieces of single bytes for what it does not know."""
    return trained("nmt_nfkc")


@pytest.fixture(scope="module")
def plain() -> bytes:
    """Without NFKC's table, of whose quarter of a million bytes the gguf package makes an array each."""
    return trained("identity")


@pytest.fixture(scope="module")
def truth() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=300, d_model=256, d_kv=64, d_ff=512, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    model = UMT5EncoderModel(config).eval().requires_grad_(False)
    torch.manual_seed(8)
    for name, value in model.named_parameters():  # as wide as transformers draws them; the same ones in any release
        if value.ndim == 1:
            value.normal_(1, 0.1)
        elif "relative_attention_bias" in name or "shared" in name:
            value.normal_()  # another bias in every block
        else:
            value.normal_(0, (256 * 64) ** -0.5 if ".q." in name else 512**-0.5 if ".wo." in name else 256**-0.5)
    return model


def state(model: UMT5EncoderModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def rows(model: torch.nn.Module, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float()


def of_the_file(path: Path, model: UMT5EncoderModel) -> UMT5EncoderModel:
    """transformers' own class with the numbers that the gguf package reads in the file."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    stored = packed_files.dequantized_by_gguf(path)
    same = UMT5EncoderModel(model.config).eval()
    mapped = {name: names.get_name(name, try_suffixes=(".weight",)) for name in state(model) if "embed" not in name}
    theirs = {name: stored[mapped[name]] for name in mapped}
    assert len(theirs) == len(stored)
    same.load_state_dict(theirs, strict=False)
    same.encoder.embed_tokens.weight = same.shared.weight
    return same


@pytest.mark.parametrize("kind", [*KINDS, "F16", "BF16"])
def test_rows_are_those_of_the_numbers_in_the_file(
    kind: str, tmp_path: Path, truth: UMT5EncoderModel, plain: bytes
) -> None:
    path = write_umt5(tmp_path / "t5.bin", state(truth), kind, plain)
    loaded = load_text_encoder(path, dtype=torch.float32)
    expected = rows(of_the_file(path, truth))
    assert packed_files.relative_error(rows(loaded.model), expected) < 2e-6
    error = packed_files.relative_error(rows(loaded.model), rows(truth))
    print(f"umT5 GGUF {kind}: {error:.1e} from the float32 weights")
    assert error < {"Q2_K": 0.8, "Q3_K": 0.6, "F16": 0.005, "BF16": 0.05}.get(kind, 0.4)
    if "F16" in kind:  # norms are float32
        kept = load_text_encoder(path).model
        assert kept.shared.weight.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}[kind]
        assert packed_files.relative_error(rows(kept), expected) < 0.05
    packed = [layer for layer in loaded.model.modules() if getattr(layer, "packing", None)]
    assert len(packed) == (0 if "F16" in kind else 15)  # q k v o wi_0 wi_1 wo, twice, and the table of words
    if packed:
        kept = sum(value.nbytes for value in loaded.model.parameters())
        assert kept < 1.02 * sum(tensor.n_bytes for tensor in gguf.GGUFReader(path).tensors)


def test_other_dtypes_and_a_table_of_another_type(tmp_path: Path, truth: UMT5EncoderModel, plain: bytes) -> None:
    path = write_umt5(tmp_path / "t5.gguf", state(truth), "Q8_0", plain, table="Q6_K")
    for asked, made in ((None, torch.bfloat16), (torch.float16, torch.bfloat16), (torch.float32, torch.float32)):
        loaded = load_text_encoder(path, dtype=asked)
        loaded.text_len = 24  # a CPU takes seconds for 512 rows
        out = loaded.encode(TEXTS)
        assert out.dtype == made
        assert out.shape == (3, 24, 256)
        assert torch.isfinite(out).all()
        assert loaded.model.encoder.embed_tokens is loaded.model.shared
    many = torch.randint(0, 300, (2, 70))
    assert packed_files.relative_error(rows(loaded.model, many), rows(of_the_file(path, truth), many)) < 2e-6


def test_tokens_are_those_of_the_model_that_was_taken_apart(
    tmp_path: Path, truth: UMT5EncoderModel, sentences: bytes
) -> None:
    loaded = load_text_encoder(write_umt5(tmp_path / "t5.gguf", state(truth), "Q8_0", sentences))
    words = sentencepiece.SentencePieceProcessor(model_proto=sentences)
    prompts = [*TEXTS, "", "unknown: ☃ \t tabs", "moves" * 300]
    for prompt in prompts:
        pieces = words.encode(prompt)[:511]
        ids, mask = loaded.tokenizer([prompt], max_length=512).values()
        assert ids[0, : len(pieces) + 1].tolist() == [*pieces, 1], prompt
        assert mask.sum() == len(pieces) + 1
    tiny.write_tokenizer(tmp_path / "tokenizer")
    named = load_text_encoder(tmp_path / "t5.gguf", tokenizer=tmp_path / "tokenizer")
    assert isinstance(named, TextEncoder)
    assert named.text_len == 12


def test_inspect(tmp_path: Path, truth: UMT5EncoderModel, sentences: bytes) -> None:
    report = inspect(write_umt5(tmp_path / "t5.gguf", state(truth), "Q8_0", sentences))
    assert (report.missing, report.unexpected, report.misshapen, report.error) == ((), (), (), "")
    assert report.kind == "a T5 text encoder in llama.cpp's layout"
    assert report.sizes == {"width": 256, "blocks": 2, "heads": 4, "ffn": 512, "words": 300}
    matrices = sum(value.numel() for name, value in state(truth).items() if value.ndim == 2 and "embed" not in name)
    assert report.stored["GGUF Q8_0"] == matrices - 2 * 32 * 4  # all but the position biases


def test_a_file_without_a_tokenizer_needs_one_beside_it(tmp_path: Path, truth: UMT5EncoderModel) -> None:
    path = write_umt5(tmp_path / "t5.gguf", state(truth), "Q8_0", None)
    with pytest.raises(UnreadableWeights, match="umt5-xxl is not there; the text encoder needs its tokenizer"):
        load_text_encoder(path)
    tiny.write_tokenizer(tmp_path / "google" / "umt5-xxl")
    assert load_text_encoder(path).text_len == 12


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda writer: writer.add_tokenizer_model("llama"), "tokenizer.ggml.model is llama and not t5"),
        (lambda writer: None, "tokenizer.ggml.model is None and not t5"),
        (lambda writer: (writer.add_tokenizer_model("t5"), writer.add_token_scores([0.0])), "token_type is missing"),
        (lambda writer: (writer.add_tokenizer_model("t5"), writer.add_token_scores([0.0]), writer.add_token_types([1])),
         "32 tokens have 1 scores and 1 types"),
        (lambda writer: (writer.add_tokenizer_model("t5"), writer.add_token_scores([0.0] * 32),
                         writer.add_token_types([-1] * 32)), "-1 is below 0"),
        (lambda writer: (writer.add_tokenizer_model("t5"), writer.add_token_scores([0.0] * 32),
                         writer.add_token_types([1] * 32)), "carries a broken tokenizer"),
    ],
)  # fmt: skip
def test_tokens_that_make_no_tokenizer(
    change, match: str, tmp_path: Path, truth: UMT5EncoderModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(writer: gguf.GGUFWriter, *_: object) -> None:
        writer.add_token_list([b"a"] * 32)
        change(writer)

    monkeypatch.setattr("tests.wan_local.weights.llama_files._add_tokenizer", add)
    loaded = load_text_encoder(write_umt5(tmp_path / "t5.gguf", state(truth), "Q8_0", b""))
    with pytest.raises(UnreadableWeights, match=match) as caught:
        loaded.encode(["a"])
    assert str(caught.value).isprintable()


def test_t5_of_other_models_is_told_by_what_it_lacks(tmp_path: Path, truth: UMT5EncoderModel) -> None:
    """T5 has one table of positions for all blocks, umT5 one in each."""
    shared = {name: value for name, value in state(truth).items() if "block.1.layer.0.SelfAttention.rel" not in name}
    path = write_umt5(tmp_path / "t5.gguf", shared, "Q8_0", None)
    tiny.write_tokenizer(tmp_path / "google" / "umt5-xxl")
    with pytest.raises(ParameterMismatch, match="1 missing .*block.1.layer.0.SelfAttention.relative_attention_bias"):
        load_text_encoder(path)
