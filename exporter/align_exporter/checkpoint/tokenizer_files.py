"""Reads and checks the tokenizer files of a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers.models import WordPiece

from align_reference.listing import shorten
from align_runtime.errors import CheckpointError
from align_runtime.json_files import MAX_JSON_BYTES, of_kind, read_object

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

CLASSES = ("BertTokenizer", "BertTokenizerFast")
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
    """

    folder: Path
    config: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    tokenizer: Mapping[str, Any] | None
    special_tokens: Mapping[str, Any]
    added_tokens: Mapping[str, Any]


def read_files(folder: Path) -> TokenizerFiles:
    """Reads the tokenizer files of `folder`.

    Raises:
        CheckpointError: there is no vocabulary, a file is malformed or sets something that is not supported, or
            ``vocab.txt`` contradicts ``tokenizer.json``.
        ConfigurationError: a value has the wrong type.
    """
    config = _optional(folder / CONFIG)
    _check_config(config, f"{folder / CONFIG}")
    _check_class(folder, config)
    has_tokenizer, has_vocabulary = (folder / TOKENIZER).exists(), (folder / VOCABULARY).exists()
    if not has_tokenizer and not has_vocabulary:
        raise CheckpointError(f"{folder} has no tokenizer; looked for {TOKENIZER} and {VOCABULARY}")
    tokenizer = read_object(folder / TOKENIZER, CheckpointError) if has_tokenizer else None
    vocabulary = _vocabulary_of(tokenizer, f"{folder / TOKENIZER}") if tokenizer is not None else {}
    if has_vocabulary:
        listed = _read_vocabulary(folder / VOCABULARY)
        if tokenizer is not None and listed != vocabulary:
            token = min(set(listed.items()) ^ set(vocabulary.items()), key=lambda item: (item[1], item[0]))[0]
            raise CheckpointError(
                f"{folder}: {VOCABULARY} and {TOKENIZER} contradict each other, first at {shorten(repr(token))} (id "
                f"{listed.get(token)} / {vocabulary.get(token)}); transformers would use {TOKENIZER}; delete the "
                "wrong one"
            )
        vocabulary = listed
    special_tokens = _optional(folder / SPECIAL_TOKENS)
    return TokenizerFiles(folder, config, vocabulary, tokenizer, special_tokens, _optional(folder / ADDED_TOKENS))


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path, CheckpointError) if path.exists() else {}


def _check_config(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        if key in SUPPORTED or key in IGNORED:
            continue
        if key == "auto_map":
            raise CheckpointError(f"{where}: auto_map is not supported, code from a checkpoint is never run; remove it")
        if key not in SUPPORTED_VALUES:
            raise CheckpointError(
                f"{where}: unknown key {shorten(repr(key))} (value {shorten(repr(value))}); it could change the token "
                "ids, so it is not ignored"
            )
        if value not in SUPPORTED_VALUES[key]:
            supported = " or ".join(repr(allowed) for allowed in SUPPORTED_VALUES[key])
            raise CheckpointError(f"{where}: {key} is {shorten(repr(value))}; expected {supported}")


def _check_class(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks `tokenizer_class` in ``tokenizer_config.json`` or ``config.json``; the default is BertTokenizer."""
    path, name = folder / CONFIG, config.get("tokenizer_class")
    if name is None:
        path = folder / "config.json"
        name = _optional(path).get("tokenizer_class")
    if name is not None and name not in CLASSES:
        raise CheckpointError(f"{path}: tokenizer_class is {shorten(repr(name))}; expected {' or '.join(CLASSES)}")


def _vocabulary_of(tokenizer: Mapping[str, Any], where: str) -> dict[str, int]:
    model = of_kind(f"{where}: model", tokenizer.get("model"), dict)
    kind = model.get("type", "WordPiece")  # old files leave the type out
    if kind != "WordPiece":
        raise CheckpointError(f"{where}: model.type is {shorten(repr(kind))}; expected 'WordPiece', which BERT uses")
    vocabulary: dict[str, int] = of_kind(f"{where}: model.vocab", model.get("vocab"), dict)
    for token, identifier in vocabulary.items():
        if not 0 <= of_kind(f"{where}: id of {token!r}", identifier, int) < 2**32:
            raise CheckpointError(
                f"{where}: the id of {shorten(repr(token))} is {identifier}; expected 0 to {2**32 - 1}"
            )
    return vocabulary


def _read_vocabulary(path: Path) -> dict[str, int]:
    """token → id, its line number from 0; a token listed twice gets the last one."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has {size} bytes; expected at most {MAX_JSON_BYTES}")
    try:
        return WordPiece.read_file(str(path))
    except Exception as reason:  # tokenizers raises Exception itself
        raise CheckpointError(f"{path} is not a vocabulary; expected one token per line in UTF-8: {reason}") from None
