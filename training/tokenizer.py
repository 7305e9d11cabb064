"""The nano model's tokenizer: byte-pair pieces of the grammar, single bytes for everything else.

Special tokens are umT5's (pad 0, end 1, unknown 2), so that any sentence can be encoded and decoded.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .draw import random_clips

TEXT_LEN = 32
SPECIAL = ["<pad>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SEED = 7


def write_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` as transformers' ``AutoTokenizer`` reads them."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))  # noqa: S106
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    captions = [clip.caption for clip in random_clips(SEED, 4000)]
    # The byte tokens get their ids from the trainer but are pieces like any other, not control tokens.
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL + BYTES, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in SPECIAL]
    (folder / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": TEXT_LEN,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
