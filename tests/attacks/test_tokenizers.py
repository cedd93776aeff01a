"""Every tokenizer.json but the one form of the exporter: refused before the `tokenizers` package sees it.

Some of the files below make the package panic, which no ``except Exception`` catches, or end the process.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_exporter.checkpoint.read_checkpoint import read_tokenizer
from align_runtime.errors import BundleError, CheckpointError
from align_runtime.tokenizer import Tokenizer
from align_runtime.tokenizer_file import MAX_ADDED, MAX_ID
from support.forged_bundles import reseal

TEXTS = ["", "a photo of a cat", "[CLS] É 中\0 ##x\u0301 ", "x" * 300, "\U0001f600\u200d\ufffd [MASK]!"]
Values = dict[str, Any]


def put(*path: str | int, value: Any) -> Callable[[Values], None]:
    """Sets the value at `path`."""

    def change(values: Values) -> None:
        place: Any = values
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        place = values
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def add_token(content: str, **fields: Any) -> Callable[[Values], None]:
    """An added token with the next free id."""

    def change(values: Values) -> None:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        values["added_tokens"].append({"id": len(values["model"]["vocab"]), "content": content} | flags | fields)

    return change


def add_many(values: Values) -> None:
    for index in range(MAX_ADDED + 1):
        add_token(f"<{index}>", id=len(values["model"]["vocab"]) + index)(values)


def double_id(values: Values) -> None:
    values["model"]["vocab"]["##a"] = values["model"]["vocab"]["a"]


def add_two_that_become_one(values: Values) -> None:
    """The package would give either id, by chance."""
    add_token("New", normalized=True)(values)
    add_token("nEw", normalized=True, id=len(values["model"]["vocab"]) + 1)(values)


REGEX = {"type": "Replace", "pattern": {"Regex": "(" * 50}, "content": ""}
LOOKBEHIND = {"type": "Replace", "pattern": {"Regex": r"(?<=a*)(a|aa)+$"}, "content": ""}
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}

HOSTILE: dict[str, Callable[[Values], None]] = {
    # normalizers
    "a regular expression that panics": put("normalizer", value=REGEX),
    "a regular expression that takes for ever": put("normalizer", value=LOOKBEHIND),
    "a map of characters": put("normalizer", value=PRECOMPILED),
    "a sequence of normalizers": put("normalizer", value={"type": "Sequence", "normalizers": [REGEX] * 3}),
    "text that grows": put(
        "normalizer", value={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100_000}
    ),
    "no normalizer": put("normalizer", value=None),
    "a flag that is a number": put("normalizer", "lowercase", value=1),
    "a flag that should be true and is 1": put("normalizer", "clean_text", value=1),
    "a number that should be an integer": put("model", "max_input_chars_per_word", value=100.0),
    "text that is not cleaned": put("normalizer", "clean_text", value=False),
    "one more key": put("normalizer", "more", value=1),
    # pre-tokenizers, decoders, post-processors
    "bytes": put("pre_tokenizer", value=BYTE_LEVEL),
    "no pre-tokenizer": put("pre_tokenizer", value=None),
    "a split": put(
        "pre_tokenizer",
        value={"type": "Split", "pattern": {"Regex": "(" * 99}, "behavior": "Isolated", "invert": False},
    ),
    "another decoder": put("decoder", value=BYTE_LEVEL),
    "no post-processor": put("post_processor", value=None),
    "an older post-processor": put(
        "post_processor", value={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    ),
    "a template with another id": put("post_processor", "special_tokens", "[CLS]", "ids", value=[7]),
    "a template with many ids": put("post_processor", "special_tokens", "[CLS]", "ids", value=[2] * 100_000),
    "a template without its tokens": put("post_processor", "special_tokens", value={}),
    "a template that says the text twice": put(
        "post_processor", "single", 1, value={"Sequence": {"id": "B", "type_id": 0}}
    ),
    "an empty template": put("post_processor", "single", value=[]),
    "the token of a template that is not there": put(
        "post_processor", "single", 0, value={"SpecialToken": {"id": "[GONE]", "type_id": 0}}
    ),
    # models
    "Unigram without tokens": put("model", value={"type": "Unigram", "unk_id": 0, "vocab": []}),
    "Unigram": put("model", value={"type": "Unigram", "unk_id": 9, "vocab": [["", -1e308], ["a", 0.0]]}),
    "BPE": put("model", value={"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"], "unk_token": "a"}),
    "WordLevel": put("model", value={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
    "no type": drop("model", "type"),
    "words without end": put("model", "max_input_chars_per_word", value=10**9),
    "words of no characters": put("model", "max_input_chars_per_word", value=0),
    "a negative length of words": put("model", "max_input_chars_per_word", value=-1),
    "another prefix": put("model", "continuing_subword_prefix", value=""),
    "an unknown token that is not there": put("model", "unk_token", value="[GONE]"),
    "no vocabulary": put("model", "vocab", value={}),
    "a list as vocabulary": put("model", "vocab", value=["a"]),
    "an id beyond its bound": put("model", "vocab", "a", value=MAX_ID),
    "an id of 32 bits": put("model", "vocab", "a", value=2**32 - 1),
    "an id of 100 digits": put("model", "vocab", "a", value=10**99),
    "a negative id": put("model", "vocab", "a", value=-1),
    "an id that is true": put("model", "vocab", "a", value=True),
    "an id with a fraction": put("model", "vocab", "a", value=7.0),
    "two tokens with one id": double_id,
    "a token of a megabyte": put("model", "vocab", "a" * 1_000_000, value=5000),
    # added tokens
    "nothing after normalization": add_token("\0", normalized=True),
    "an accent alone": add_token("\u0301", normalized=True),
    "two tokens that are one after normalization": add_two_that_become_one,
    "an invisible token": add_token("\u200b", normalized=True, single_word=True),
    "an empty token": add_token(""),
    "an added token of a megabyte": add_token("a" * 1_000_000),
    "an added token with the id of another": add_token("<new>", id=7),
    "an added token with a hole before it": add_token("<new>", id=4000),
    "an added token with another id than in the vocabulary": add_token("a"),
    "an added token with more": add_token("<new>", more=1),
    "an added token without a flag": lambda values: values["added_tokens"][0].pop("special"),
    "too many added tokens": add_many,
    "an added token that is a text": lambda values: values["added_tokens"].append("a"),
    "added tokens as an object": put("added_tokens", value={}),
    # the document
    "truncation": put(
        "truncation", value={"direction": "Left", "max_length": 2**63, "strategy": "LongestFirst", "stride": 9}
    ),
    "padding": put("padding", value={"strategy": {"Fixed": 2**63}, "direction": "Left", "pad_id": 0, "pad_type_id": 0}),
    "another version": put("version", value="2.0"),
    "one more section": put("more", value=1),
    "one section less": drop("decoder"),
    "ids beyond the embedding table": add_token("<new>"),
}


@pytest.fixture(scope="module")
def good(tiny_bundle: Path) -> Values:
    return json.loads((tiny_bundle / "tokenizer.json").read_text(encoding="utf-8"))


def refused(bundle: Path, text: str | bytes) -> str:
    """The message of the error with which a bundle with this tokenizer is refused."""
    (bundle / "tokenizer.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    reseal(bundle)
    with pytest.raises(BundleError) as caught:
        align_runtime.load(bundle, towers=("text",), streams=1)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 500
    return message


@pytest.mark.parametrize("name", HOSTILE)
def test_other_forms(name: str, good: Values, bundle_copy: Path) -> None:
    values = copy.deepcopy(good)
    HOSTILE[name](values)
    assert "tokenizer" in refused(bundle_copy, json.dumps(values))


TEXTUAL = {
    "half a surrogate pair": lambda text: text.replace('"pink"', r'"\ud800"'),
    "half a surrogate pair in a key": lambda text: text.replace('"decoder"', r'"\udfff"'),
    "not UTF-8": lambda text: text.encode("utf-16"),
    "deep": lambda text: "[" * 100_000,
    "deep inside": lambda text: text.replace('"##"', '{"a":' * 90_000 + "1" + "}" * 90_000),
    "a number of 5000 digits": lambda text: text.replace('"pink": 122', f'"pink": {"9" * 5000}'),
    "infinity": lambda text: text.replace('"pink": 122', '"pink": 1e999'),
    "NaN": lambda text: text.replace('"pink": 122', '"pink": NaN'),
    "a bomb of white space": lambda text: text + " " * (33 << 20),
}


@pytest.mark.parametrize("name", TEXTUAL)
def test_other_texts(name: str, bundle_copy: Path) -> None:
    text = (bundle_copy / "tokenizer.json").read_text(encoding="utf-8")
    changed = TEXTUAL[name](text)
    assert changed != text
    refused(bundle_copy, changed)


def test_a_section_that_is_there_twice_counts_once(bundle_copy: Path) -> None:
    """The package might take the first, Python takes the last: the package gets none of the two."""
    text = (bundle_copy / "tokenizer.json").read_text(encoding="utf-8")
    (bundle_copy / "tokenizer.json").write_text(f'{{"normalizer": {json.dumps(REGEX)}, {text[1:]}', encoding="utf-8")
    reseal(bundle_copy)
    with align_runtime.load(bundle_copy, towers=("text",)) as model:
        assert model.embed_texts(["a cat"]).shape[0] == 1


def test_a_tokenizer_that_is_no_file(bundle_copy: Path) -> None:
    path = bundle_copy / "tokenizer.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError):
        Tokenizer.from_file(path, 64, 0)


def test_the_exporter_refuses_what_the_runtime_would(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Ids that the exporter could not write, tokens that would be lost, and those that make the package panic."""
    values = json.loads((tiny_checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((tiny_checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("added_tokens_decoder", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for change in (
        put("model", "vocab", "pink", value=2**32 - 1),  # 4 billion lines were written before
        double_id,
        add_token("\u200b", normalized=True),
        put("model", "vocab", "a" * 1000, value=159),
    ):
        changed = copy.deepcopy(values)
        change(changed)
        (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError):
            read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    assert read_tokenizer(tmp_path).vocab_size == len(values["model"]["vocab"])


def mutated(values: Values, generator: random.Random) -> Values:
    """`values` with one to four changes: half are what a tokenizer may well have, half are anything anywhere."""
    changed = copy.deepcopy(values)
    for _ in range(generator.randint(1, 4)):
        (change_plausibly if generator.random() < 0.5 else change_anything)(changed, generator)
    return changed


def change_plausibly(values: Values, generator: random.Random) -> None:
    """Another flag, or another token: odd characters, spaces, prefixes."""
    text = "".join(generator.choice(ODD_TEXTS) for _ in range(generator.randint(1, 3)))
    try:
        match generator.randrange(4):
            case 0:
                flag = generator.choice(("handle_chinese_chars", "strip_accents", "lowercase"))
                values["normalizer"][flag] = generator.random() < 0.5
            case 1:
                values["model"]["vocab"].setdefault(text, max(values["model"]["vocab"].values()) + 1)
            case 2:
                add_token(text, **{name: generator.random() < 0.5 for name in FLAGS})(values)
            case 3:
                token = generator.choice(values["added_tokens"])
                token[generator.choice(FLAGS)] = generator.random() < 0.5
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        pass  # an earlier change took the place away


def change_anything(values: Values, generator: random.Random) -> None:
    """Another value, or a key that is gone or doubled, at any depth."""
    place: Any = values
    while place:
        key = generator.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and generator.random() < 0.8:
            place = place[key]
            continue
        match generator.randrange(4):
            case 0:
                place.pop(key)
            case 1 if isinstance(place, dict):
                place[generator.choice(ODD_TEXTS)] = place[key]
            case _:
                place[key] = generator.choice([*ODD_TEXTS, *ODD_VALUES])
        break


FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
ODD_TEXTS = [
    *("", " ", "\0", "\u0301", "\u200b", "##", "[CLS]", "[UNK]", "a", "É", "中", "$A", ":", "\ufeff", "\U0010ffff"),
    *("\u1e9e", "\u0130", "\u3000", "\U0001f600\u200d", "\x85"),
]
ODD_VALUES = [None, True, False, 0, 1, -1, 7, 158, 159, 2**31, 2**32, 2**64, 0.5, 1e308, [], {}, [[]], {"type": "BPE"}]


def replay(values: Values, folder: Path, rounds: int, seed: int) -> int:
    """Reads `rounds` mutated files, tokenizes with each that is taken, and returns how many were."""
    generator, taken = random.Random(seed), 0
    path = folder / "tokenizer.json"
    for _ in range(rounds):
        path.write_text(json.dumps(mutated(values, generator)), encoding="utf-8")
        try:
            tokenizer = Tokenizer.from_file(path, 32, 0)
        except BundleError:
            continue
        rows = tokenizer.encode([*TEXTS, *ODD_TEXTS])
        assert all(2 <= len(row) <= 32 and row.min() >= 0 and row.max() < tokenizer.vocab_size for row in rows)
        taken += 1
    return taken


def test_mutated_files(good: Values, tmp_path: Path) -> None:
    """Each is refused, or tokenizes every text; some are taken, or the test would show nothing."""
    assert 100 < replay(good, tmp_path, 1000, seed=1) < 900
