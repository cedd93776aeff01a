"""Tokenizer and preprocessing files in every supported format, compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertTokenizer
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_exporter.checkpoint.read_checkpoint import (
    TokenizerAssets,
    check_vocabulary,
    read_preprocessing,
    read_tokenizer,
)
from align_runtime.errors import AlignError, CheckpointError, ConfigurationError
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.tokenizer import Tokenizer
from support.checkpoint_folder import NEW, PLAIN, TOKEN, WORDS, Folder
from support.text_samples import SPECIAL, fuzzed_texts, write_vocabulary

TEXTS = [
    *("a photo of a cat", "A Photo of a CAT.", "café CAFÉ cafe\u0301", "中文 photo中", "", "  \t\n", "x" * 101),
    *("a<new>b <new> <NEW> x", "<pad> <PAD>", "<extra>a <Extra>", "[UNK] [SEP] [PAD]", "CAFÉ<new>[MASK] a"),
    *("a [MASK] b", "a[MASK] b", "a [MASK]", "[MASK][CLS] [mask]", "[mask] [ mask ] < new >", "a   <new>   b"),
    *("<s> a </s>", "cat<new>cat", "[MASK ]", *fuzzed_texts(150, seed=3)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def assert_like_transformers(folder: Folder) -> TokenizerAssets:
    """Compares the ids of the runtime for the written tokenizer.json with BertTokenizer and AutoTokenizer."""
    assets = read_tokenizer(folder.path)
    folder.text("bundled.json", assets.json)
    ours = Tokenizer.from_file(folder.path / "bundled.json", 64, assets.pad_token_id)
    rows = [row.tolist() for row in ours.encode(TEXTS)]
    for loader in (BertTokenizer, AutoTokenizer):
        oracle = loader.from_pretrained(folder.path)
        assert type(oracle) is BertTokenizer
        expected = oracle(TEXTS, truncation=True, max_length=64)["input_ids"]
        for text, row, other in zip(TEXTS, rows, expected, strict=True):
            assert row == other, text
        assert assets.pad_token_id == oracle.pad_token_id
        assert assets.vocab_size == ours.vocab_size == max(oracle.get_vocab().values()) + 1
        assert assets.max_length == (None if oracle.model_max_length > 10**20 else oracle.model_max_length)
    assert read_tokenizer(folder.path) == assets
    return assets


def old_tokenizer(content: dict[str, Any]) -> None:
    """The format that converters of transformers 3 wrote."""
    del content["model"]["type"]
    content["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}


def with_truncation_and_padding(content: dict[str, Any]) -> None:
    content["truncation"] = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] = {**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}


NAMES = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
PUBLISHED = {
    **NAMES,
    "clean_up_tokenization_spaces": True,
    "do_basic_tokenize": True,
    "do_lower_case": True,
    "model_max_length": 64,
    "never_split": None,
    "processor_class": "AlignProcessor",
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
}
MASK = {"content": "[MASK]", **PLAIN}
MASK_OBJECT = {"__type": "AddedToken", **MASK}
LEFT_MASK, RIGHT_MASK = {**MASK, "lstrip": True}, {**MASK, "rstrip": True}
OTHER_NAMES = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}

FORMS: dict[str, Callable[[Folder], Any]] = {
    # The vocabulary and the flags.
    "vocab.txt alone": lambda f: f.vocabulary(),
    "vocab.txt, CRLF": lambda f: f.vocabulary(newline="\r\n"),
    "vocab.txt, a token twice": lambda f: f.vocabulary([*WORDS[:-2], "cat", *WORDS[-2:]]),
    "cased": lambda f: f.vocabulary().config(do_lower_case=False),
    "accents kept": lambda f: f.vocabulary().config(strip_accents=False, tokenizer_class="BertTokenizerFast"),
    "accents stripped, cased": lambda f: f.vocabulary().config(do_lower_case=False, strip_accents=True),
    "ideographs in words": lambda f: f.vocabulary().config(tokenize_chinese_chars=False),
    # tokenizer.json.
    "published": lambda f: f.vocabulary().saved().special_map(**NAMES),
    "published, old configuration": lambda f: f.vocabulary().saved().config(**PUBLISHED),
    "transformers 5": lambda f: f.saved(model_max_length=64),
    "transformers 5, cased": lambda f: f.saved(do_lower_case=False),
    "transformers 5, extras": lambda f: f.saved(extra_special_tokens=["<extra>", "<new>"]),
    "transformers 3": lambda f: f.saved().edit("tokenizer.json", old_tokenizer).config(model_max_length=512),
    "tokenizer.json alone": lambda f: f.saved().remove("tokenizer_config.json"),
    "truncation and padding": lambda f: f.saved().edit("tokenizer.json", with_truncation_and_padding),
    "a new token": lambda f: f.saved().edit("tokenizer.json", lambda c: c["added_tokens"].append({"id": NEW, **TOKEN})),
    # The named tokens.
    "other names": lambda f: f.vocabulary([*OTHER_NAMES.values(), *WORDS[5:]]).config(
        **{f"{k}_token": v for k, v in OTHER_NAMES.items()}
    ),
    "no mask token": lambda f: f.vocabulary().config(mask_token=None, bos_token=None),
    "new bos and eos tokens": lambda f: f.vocabulary().config(eos_token="</s>", bos_token="<s>"),
    "new padding token": lambda f: f.vocabulary(WORDS[1:]).config(),
    "an object": lambda f: f.vocabulary().config(mask_token=MASK_OBJECT),
    "map of strings": lambda f: f.vocabulary().special_map(pad_token="cat", mask_token="[MASK]"),
    "map of objects": lambda f: f.vocabulary().special_map(mask_token=LEFT_MASK),
    "map over configuration": lambda f: f.vocabulary().config(pad_token="[PAD]").special_map(pad_token="cat"),
    # The added tokens.
    "decoder": lambda f: f.vocabulary().config(added_tokens_decoder={str(NEW): TOKEN}),
    "decoder, named": lambda f: f.vocabulary().config(added_tokens_decoder={"4": {**TOKEN, "content": "[MASK]"}}),
    "decoder, spaces": lambda f: f.vocabulary().config(
        added_tokens_decoder={str(NEW): {**TOKEN, "lstrip": True}, "4": RIGHT_MASK}
    ),
    "decoder over the rest": lambda f: (
        f.vocabulary().config(added_tokens_decoder={}).special_map(pad_token="cat").added(**{"<new>": NEW})
    ),
    "added": lambda f: f.vocabulary().added(**{"<new>": NEW, "<extra>": NEW + 1}),
    "added, default mask": lambda f: f.vocabulary().added(**{"[MASK]": 4}),
    "added, mask in configuration": lambda f: f.vocabulary().config(mask_token="[MASK]").added(**{"[MASK]": 4}),
    "added, mask an object": lambda f: f.vocabulary().config(mask_token=MASK_OBJECT).added(**{"[MASK]": 4}),
    "added, mask in map": lambda f: f.vocabulary().special_map(mask_token=MASK).added(**{"[MASK]": 4}),
    # The extra special tokens.
    "extras": lambda f: f.vocabulary().config(extra_special_tokens=["<new>", "<extra>", "cat"]),
    "extras, old name": lambda f: f.vocabulary().config(additional_special_tokens=["<new>", "cat"]),
    "extras in map": lambda f: f.vocabulary().special_map(extra_special_tokens=["<new>"]),
    "extras in map, old name": lambda f: f.vocabulary().special_map(additional_special_tokens=["<new>"]),
    "extras, empty object": lambda f: (
        f.vocabulary().config(extra_special_tokens={}).special_map(additional_special_tokens=["<new>"])
    ),
    "extras in both": lambda f: (
        f.vocabulary().config(additional_special_tokens=["<new>"]).special_map(additional_special_tokens=["<new>"])
    ),
    "extras, added": lambda f: f.vocabulary().config(additional_special_tokens=["<new>"]).added(**{"<new>": NEW}),
    "extras in map, added": lambda f: (
        f.vocabulary().special_map(extra_special_tokens=["<new>"]).added(**{"<new>": NEW})
    ),
    "extras in map, old name, added": lambda f: (
        f.vocabulary().special_map(additional_special_tokens=["<new>"]).added(**{"<new>": NEW})
    ),
    # The maximum length.
    "max_len": lambda f: f.vocabulary().config(max_len=77),
    "no limit": lambda f: f.vocabulary().config(model_max_length=1000000000000000019884624838656),
    "no limit, a float": lambda f: f.vocabulary().config(model_max_length=1e30),
    "no limit, null": lambda f: f.vocabulary().config(model_max_length=None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_ids_of_transformers(form: str, folder: Folder) -> None:
    FORMS[form](folder)
    assert_like_transformers(folder)


def test_a_large_vocabulary_from_a_saved_tokenizer(folder: Folder) -> None:
    write_vocabulary(folder.path)
    oracle = BertTokenizer.from_pretrained(folder.path)
    oracle.add_tokens([AddedToken("<new>", lstrip=True)])
    folder.remove("vocab.txt")
    oracle.save_pretrained(folder.path)
    assert {path.name for path in folder.path.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert_like_transformers(folder)


def test_the_written_tokenizer_has_every_setting_explicit(folder: Folder) -> None:
    written = json.loads(read_tokenizer(folder.vocabulary().config(model_max_length=64).path).json)
    assert written["truncation"] is None
    assert written["padding"] is None
    assert written["normalizer"] == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    assert list(written["model"]["vocab"].items()) == [(word, index) for index, word in enumerate(WORDS)]


def test_check_vocabulary(folder: Folder) -> None:
    assets = read_tokenizer(folder.vocabulary().config(extra_special_tokens=["<new>"]).path)
    check_vocabulary(assets, NEW + 1)
    check_vocabulary(assets, NEW + 100)
    with pytest.raises(CheckpointError, match=f"{NEW} rows"):
        check_vocabulary(assets, NEW)


# Image preprocessing.

ALIGN = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": True,
    "do_normalize": False,
    "image_processor_type": "EfficientNetImageProcessor",
    "include_top": False,
    "resample": 2,
    "rescale_factor": 0.00784313725490196,
    "rescale_offset": True,
    "size": {"height": 346, "width": 346},
}
OLD, NEW_NAME = "preprocessor_config.json", "processor_config.json"
NESTED = {"processor_class": "AlignProcessor", "image_processor": ALIGN}


@pytest.mark.parametrize(
    "make",
    [
        lambda f: f.json(OLD, ALIGN),
        lambda f: f.json(NEW_NAME, NESTED),
        lambda f: f.json(NEW_NAME, {}).json(OLD, ALIGN),
        lambda f: f.json(NEW_NAME, NESTED).json(OLD, {**ALIGN, "image_mean": 9}),
        lambda f: EfficientNetImageProcessorPil(**ALIGN).save_pretrained(f.path),
    ],
    ids=["old", "today", "today, not nested", "both agree", "saved by transformers"],
)
def test_preprocessing_is_read_from_every_format(make: Callable[[Folder], Any], folder: Folder) -> None:
    make(folder)
    assert read_preprocessing(folder.path) == ImagePreprocessing.from_hub(ALIGN, "test")


MISSING = "no image preprocessing"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f: f, CheckpointError, MISSING),
        (lambda f: f.json(NEW_NAME, {"processor_class": "X"}), CheckpointError, MISSING),
        (
            lambda f: f.json(NEW_NAME, NESTED).json(OLD, {**ALIGN, "resample": 3}),
            CheckpointError,
            r"processor_config\.json and preprocessor_config\.json contradict each other \(resample: 2 / 3\)",
        ),
        (lambda f: f.text(OLD, '{"size": NaN}'), CheckpointError, r"is not valid JSON: NaN is not a JSON number"),
        (lambda f: f.text(OLD, '{"size": 3'), CheckpointError, r"preprocessor_config\.json is not valid JSON"),
        (
            lambda f: f.text(OLD, '{"rescale_factor": 1e999}'),
            ConfigurationError,
            r"rescale_factor is inf",
        ),
        (
            lambda f: f.json(NEW_NAME, {"image_processor": {**ALIGN, "blur": 1}}),
            ConfigurationError,
            r"processor_config\.json: image_processor: unknown key 'blur'",
        ),
        (
            lambda f: f.json(NEW_NAME, {"image_processor": 3}),
            ConfigurationError,
            r"processor_config\.json: image_processor is 3",
        ),
    ],
    ids=["nothing", "not nested", "contradiction", "NaN", "no JSON", "infinity", "unknown key", "no object"],
)
def test_preprocessing_that_is_refused(
    make: Callable[[Folder], Any], error: type[AlignError], message: str, folder: Folder
) -> None:
    make(folder)
    with pytest.raises(error, match=message) as caught:
        read_preprocessing(folder.path)
    assert "\n" not in str(caught.value)
