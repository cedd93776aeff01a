"""A small uncased WordPiece tokenizer with the files of BERT's."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SPECIAL["mask_token"] = "[MASK]"
MAX_LENGTH = 64

_WORDS = (
    "a an the of in on at with and photo image painting drawing cat dog bird horse car bus train plane boat "
    "house tree flower garden mountain river lake sea beach city street man woman child people red green blue white "
    "black small big old new two three ##s ##ing ##ed ##er ##ly"
)
_CHARACTERS = string.ascii_lowercase + string.digits
VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(  # letters and digits as words and as pieces, so that only other scripts are unknown
        [*SPECIAL.values(), *string.punctuation, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS), *_WORDS.split()]
    )
)


def tokenizer() -> Tokenizer:
    """The tokenizer of the ``tokenizers`` package, without truncation and padding."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    built = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    built.normalizer = BertNormalizer(lowercase=True)
    built.pre_tokenizer = BertPreTokenizer()
    built.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    built.decoder = WordPieceDecoder()
    built.add_special_tokens(list(SPECIAL.values()))
    return built


def write_tokenizer(folder: Path) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json`` and ``vocab.txt``."""
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    settings = {"do_lower_case": True, "model_max_length": MAX_LENGTH, "tokenizer_class": "BertTokenizer", **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL, indent=2) + "\n", encoding="utf-8")
