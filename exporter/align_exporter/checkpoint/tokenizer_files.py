"""Reads and checks the tokenizer files of a checkpoint folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_reference.config_reading import without_unknown
from align_reference.files import read_json, refuse_pointers
from align_runtime.errors import CheckpointError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import MAX_JSON_BYTES, of_kind
from align_runtime.regular_files import read_regular

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

# Classes of transformers that take the flags of the normalizer from ``tokenizer_config.json``, and classes that use
# ``tokenizer.json`` as it is: the general ones, by their names in all versions.
BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")
GENERAL_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "PythonBackend")
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA_TOKENS = ("extra_special_tokens", "additional_special_tokens")  # the current name and the older one
SUPPORTED = (
    *NAMED_TOKENS,
    *EXTRA_TOKENS,
    "added_tokens_decoder",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "model_max_length",
    "max_len",
    "tokenizer_class",
)

# Token ids do not depend on these, whatever their value.
IGNORED = (
    *("processor_class", "name_or_path", "tokenizer_file", "vocab_file", "special_tokens_map_file", "backend"),
    *("is_local", "local_files_only", "model_input_names", "clean_up_tokenization_spaces", "chat_template", "verbose"),
    *("max_length", "stride", "truncation_strategy", "truncation", "padding", "pad_to_multiple_of", "use_fast"),
    *("pad_token_type_id", "files_loaded", "transformers_version", "return_tensors", "add_bos_token", "add_eos_token"),
)

# Supported with these values only; with others the ids or their positions would change.
SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    "padding_side": ("right",),
    "truncation_side": ("right",),
    "split_special_tokens": (False,),
    "do_basic_tokenize": (None, True),
    "never_split": (None, []),
    "init_inputs": ([],),
    "add_prefix_space": (None, False),
}


KNOWN = frozenset({*SUPPORTED, *IGNORED, *SUPPORTED_VALUES, "auto_map"})

# Flag in ``tokenizer_config.json`` → its name in the normalizer of ``tokenizer.json``.
FLAGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# What the tokenizers package strips from the end of a line: Unicode's white space (str.rstrip takes more).
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


@dataclass(frozen=True)
class TokenizerFiles:
    """The contents of the tokenizer files of one folder.

    Attributes:
        folder: the folder.
        config: the object in ``tokenizer_config.json``, its keys checked; empty where there is no such file.
        vocabulary: token → id, from ``tokenizer.json`` or else ``vocab.txt``.
        tokenizer: the object in ``tokenizer.json``, or None.
        special_tokens: the object in ``special_tokens_map.json``; empty where there is no such file.
        added_tokens: the object in ``added_tokens.json``; empty where there is no such file.
        is_general: whether the class is one of `GENERAL_CLASSES`, so that `config` has the flags of ``tokenizer.json``.
    """

    folder: Path
    config: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    tokenizer: Mapping[str, Any] | None
    special_tokens: Mapping[str, Any]
    added_tokens: Mapping[str, Any]
    is_general: bool


def read_files(
    folder: Path, ignored: list[str] | None = None, stand_in: Mapping[str, int] | None = None
) -> TokenizerFiles:
    """Reads the tokenizer files of `folder`; arguments as those of `read_checkpoint.read_tokenizer`.

    Raises:
        CheckpointError: there is no vocabulary, a file is malformed or sets something that is not supported, or
            ``vocab.txt`` contradicts ``tokenizer.json``.
        ConfigurationError: a value has the wrong type.
    """
    config = _optional(folder / CONFIG)
    if ignored is not None:
        config = without_unknown(config, KNOWN, CONFIG, ignored)
    _check_config(config, f"{folder / CONFIG}")
    has_tokenizer, has_vocabulary = (os.path.lexists(folder / name) for name in (TOKENIZER, VOCABULARY))
    if not has_tokenizer and not has_vocabulary and stand_in is None:
        raise CheckpointError(f"{folder} has no tokenizer; looked for {TOKENIZER} and {VOCABULARY}")
    is_general = _is_general(folder, config, has_tokenizer)
    tokenizer = read_json(folder / TOKENIZER) if has_tokenizer else None
    vocabulary: Mapping[str, int] = stand_in or {}
    if tokenizer is not None:
        vocabulary = _vocabulary_of(tokenizer, f"{folder / TOKENIZER}")
        if is_general:
            config = _settings_of(tokenizer, config, f"{folder / TOKENIZER}")
    if has_vocabulary:
        listed = _read_vocabulary(folder / VOCABULARY)
        if tokenizer is not None and listed != vocabulary:
            token = min(set(listed.items()) ^ set(vocabulary.items()), key=lambda item: (item[1], item[0]))[0]
            raise CheckpointError(
                f"{folder}: {VOCABULARY} and {TOKENIZER} contradict each other, first at {shortened(token)} (id "
                f"{listed.get(token)} / {vocabulary.get(token)}); transformers would use {TOKENIZER}; delete the "
                "wrong one"
            )
        vocabulary = listed
    special_tokens = _optional(folder / SPECIAL_TOKENS)
    added_tokens = _optional(folder / ADDED_TOKENS)
    return TokenizerFiles(folder, config, vocabulary, tokenizer, special_tokens, added_tokens, is_general)


def _optional(path: Path) -> dict[str, Any]:
    """The object in `path`, or {} where nothing has that name: a link that leads nowhere is an error, not a default."""
    return read_json(path) if os.path.lexists(path) else {}


def _check_config(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        if key in SUPPORTED or key in IGNORED:
            continue
        if key == "auto_map":
            raise CheckpointError(f"{where}: auto_map is not supported, code from a checkpoint is never run; remove it")
        if key not in SUPPORTED_VALUES:
            raise CheckpointError(
                f"{where}: unknown key {shortened(key)} (value {shortened(value)}); it could change the token ids, so "
                "it is not ignored (align-export --ignore-unknown-keys does)"
            )
        if value not in SUPPORTED_VALUES[key]:
            supported = " or ".join(repr(allowed) for allowed in SUPPORTED_VALUES[key])
            raise CheckpointError(f"{where}: {key} is {shortened(value)}; expected {supported}")


def _is_general(folder: Path, config: Mapping[str, Any], has_tokenizer: bool) -> bool:
    """Whether `tokenizer_class` is one of `GENERAL_CLASSES`; it is in one of two files, by default BertTokenizer."""
    path, name = folder / CONFIG, config.get("tokenizer_class")
    if name is None:
        path = folder / "config.json"
        name = _optional(path).get("tokenizer_class")
    if name in GENERAL_CLASSES and not has_tokenizer:
        raise CheckpointError(f"{path}: tokenizer_class is {name!r}, which needs a {TOKENIZER}; there is none")
    if name is not None and name not in (*BERT_CLASSES, *GENERAL_CLASSES):
        raise CheckpointError(
            f"{path}: tokenizer_class is {shortened(name)}; expected {' or '.join(BERT_CLASSES)}, or "
            f"{GENERAL_CLASSES[0]} with a {TOKENIZER} of BERT's kind"
        )
    return name in GENERAL_CLASSES


def _settings_of(tokenizer: Mapping[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`config` with what a general class takes from ``tokenizer.json``: the normalizer's flags, a token to pad with."""
    padding = of_kind(f"{where}: padding", tokenizer.get("padding") or {}, dict)
    normalizer = of_kind(f"{where}: normalizer", tokenizer.get("normalizer") or {}, dict)
    defaults = {key: padding[key] for key in ("pad_token",) if key in padding}
    return defaults | dict(config) | {key: normalizer[name] for key, name in FLAGS.items() if name in normalizer}


def _vocabulary_of(tokenizer: Mapping[str, Any], where: str) -> dict[str, int]:
    model = of_kind(f"{where}: model", tokenizer.get("model"), dict)
    kind = model.get("type", "WordPiece")  # old files leave the type out
    if kind != "WordPiece":
        raise CheckpointError(f"{where}: model.type is {shortened(kind)}; expected 'WordPiece', which BERT uses")
    vocabulary: dict[str, int] = of_kind(f"{where}: model.vocab", model.get("vocab"), dict)
    for token, identifier in vocabulary.items():
        if type(identifier) is not int or not 0 <= identifier < 2**32:
            raise CheckpointError(
                f"{where}: the id of {shortened(token)} is {shortened(identifier)}; expected 0 to {2**32 - 1}"
            )
    return vocabulary


def _read_vocabulary(path: Path) -> dict[str, int]:
    """token → id, its line number from 0; a token listed twice gets the last one."""
    refuse_pointers(path.parent, [path.name])
    try:
        text = read_regular(path, MAX_JSON_BYTES, CheckpointError).decode("utf-8")
    except UnicodeDecodeError as reason:
        raise CheckpointError(f"{path} is not a vocabulary; expected one token per line in UTF-8: {reason}") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    return {line.rstrip(WHITE_SPACE): number for number, line in enumerate(lines)}
