"""Tokenizers of transformers' general classes, which use ``tokenizer.json`` as it is, where that is of BERT's kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from align_exporter.checkpoint.read_checkpoint import read_tokenizer
from align_exporter.checkpoint.tokenizer_files import GENERAL_CLASSES
from align_runtime.errors import CheckpointError, ConfigurationError
from align_runtime.tokenizer import Tokenizer
from support.checkpoint_folder import NEW, TOKEN, WORDS, Folder
from support.text_samples import fuzzed_texts

TEXTS = [
    *("a photo of a cat", "A Photo of a CAT.", "café CAFÉ cafe\u0301", "中文 photo中", "", "x" * 101),
    *("a<new>b <new> <NEW> x", "[UNK] [SEP] [PAD]", "CAFÉ<new>[MASK] a", "[mask] [MASK]a", *fuzzed_texts(100, seed=5)),
]
FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")


def without_flags(config: dict[str, Any]) -> None:
    for key in FLAGS:
        config.pop(key, None)


def with_padding(content: dict[str, Any]) -> None:
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] = {**padding, "pad_id": 56, "pad_type_id": 0, "pad_token": "photo"}


# What the folder of a BertTokenizer becomes; its class is then set to a general one.
FORMS: dict[str, Callable[[Folder], Any]] = {
    "saved": lambda f: f.saved(),
    "cased": lambda f: f.saved(do_lower_case=False).edit("tokenizer_config.json", without_flags),
    "the configuration says otherwise": lambda f: f.saved(do_lower_case=False).edit(
        "tokenizer_config.json", lambda c: c.update(do_lower_case=True)
    ),
    "accents kept": lambda f: f.saved(strip_accents=False).edit("tokenizer_config.json", without_flags),
    "ideographs in words": lambda f: f.saved(tokenize_chinese_chars=False),
    "a new token": lambda f: f.saved().edit("tokenizer.json", lambda c: c["added_tokens"].append({"id": NEW, **TOKEN})),
    "extras": lambda f: f.saved(extra_special_tokens=["<new>"]),
    "padding of its own": lambda f: (
        f.saved().edit("tokenizer.json", with_padding).edit("tokenizer_config.json", lambda c: c.pop("pad_token"))
    ),
    "no mask declared": lambda f: (
        f.saved()
        .edit("tokenizer_config.json", lambda c: c.pop("mask_token"))
        .edit("tokenizer.json", lambda c: c.update(added_tokens=c["added_tokens"][:4]))
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def assert_like_transformers(folder: Folder) -> None:
    assets = read_tokenizer(folder.path)
    folder.text("bundled.json", assets.json)
    ours = Tokenizer.from_file(folder.path / "bundled.json", 64, assets.pad_token_id)
    oracle = AutoTokenizer.from_pretrained(folder.path)
    assert type(oracle).__name__ == "TokenizersBackend"
    oracle.backend_tokenizer.no_padding()
    expected = oracle(TEXTS, truncation=True, max_length=64)["input_ids"]
    for text, row, other in zip(TEXTS, ours.encode(TEXTS), expected, strict=True):
        assert row.tolist() == other, text
    assert assets.pad_token_id == oracle.pad_token_id
    assert assets.vocab_size == max(oracle.get_vocab().values()) + 1


@pytest.mark.parametrize("name", GENERAL_CLASSES)
@pytest.mark.parametrize("form", FORMS)
def test_ids_are_those_of_transformers(form: str, name: str, folder: Folder) -> None:
    FORMS[form](folder)
    folder.edit("tokenizer_config.json", lambda config: config.update(tokenizer_class=name))
    assert_like_transformers(folder)


def test_one_that_was_made_with_the_tokenizers_package(folder: Folder) -> None:
    backend = Backend(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = (
        Folder(folder.path).saved() and Backend.from_file(str(folder.path / "tokenizer.json")).post_processor
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder.path)
    assert_like_transformers(folder)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("normalizer", {"type": "Lowercase"}, "normalizer.type is 'Lowercase', but a BERT tokenizer"),
        ("normalizer", None, "normalizer.type is None, but a BERT tokenizer"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer.type is 'Whitespace'"),
        ("post_processor", None, r"post_processor is \{\}"),
        ("model", {"type": "BPE", "vocab": {}, "merges": []}, "model.type is 'BPE'; expected 'WordPiece'"),
    ],
)
def test_another_kind_of_tokenizer(section: str, value: Any, message: str, folder: Folder) -> None:
    folder.saved().edit("tokenizer.json", lambda content: content.update({section: value}))
    folder.edit("tokenizer_config.json", lambda config: config.update(tokenizer_class="TokenizersBackend"))
    with pytest.raises((CheckpointError, ConfigurationError), match=message):
        read_tokenizer(folder.path)


def test_no_token_to_pad_with(folder: Folder) -> None:
    folder.saved().config(tokenizer_class="TokenizersBackend")
    rename = {"[PAD]": "<pad>"}

    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {rename.get(token, token): identifier for token, identifier in vocabulary.items()}
        content["added_tokens"] = []

    folder.edit("tokenizer.json", change)
    with pytest.raises(CheckpointError, match=r"no file declares a pad_token, and '\[PAD\]' is not in the vocabulary"):
        read_tokenizer(folder.path)
