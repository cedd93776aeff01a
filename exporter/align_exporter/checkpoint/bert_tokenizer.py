"""Builds a BERT tokenizer from its files, with the ids of transformers' BertTokenizer (5.23).

transformers 5 does not use a ``tokenizer.json`` as it is: BertTokenizer takes only the vocabulary and the added tokens
from it. It rebuilds normalizer, pre-tokenizer and post-processor from ``tokenizer_config.json``, with the defaults of
the class for absent keys. (The general classes, see `tokenizer_files.GENERAL_CLASSES`, use the file as it is; their
flags are those of its normalizer.) `describe_tokenizer` does the same and refuses a ``tokenizer.json`` that describes
another tokenizer. transformers would silently ignore such a file. A checkpoint that transformers saved never
contradicts itself; one that does was edited by hand or mixed from two, so one of its files is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from align_exporter.checkpoint.special_tokens import SpecialTokens, read_special_tokens
from align_exporter.checkpoint.tokenizer_files import CONFIG, TOKENIZER, TokenizerFiles
from align_reference.listing import shorten
from align_runtime.errors import CheckpointError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind
from align_runtime.tokenizer_file import AddedToken, TokenizerDescription, check_vocabulary

# The fields of a ``tokenizer.json`` that ids depend on.
MODEL_KEYS = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")
NORMALIZER_KEYS = ("type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
ADDED_KEYS = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")


def describe_tokenizer(files: TokenizerFiles) -> tuple[TokenizerDescription, str]:
    """Returns the tokenizer, without truncation and padding, and its padding token.

    Raises:
        CheckpointError: a special token is missing or malformed, the runtime would not take the tokenizer, or
            ``tokenizer.json`` contradicts the result.
        ConfigurationError: a value has the wrong type.
    """
    tokens = read_special_tokens(files)
    unknown, start, end = (tokens.named[key].content for key in ("unk_token", "cls_token", "sep_token"))
    strip_accents = None if files.config.get("strip_accents") is None else _flag(files, "strip_accents")
    chinese, lowercase = _flag(files, "tokenize_chinese_chars"), _flag(files, "do_lower_case")
    added = _added_tokens(files, tokens)
    contents = {token.content for token in added}
    for key in ("pad_token", "cls_token", "sep_token"):
        content = tokens.named[key].content
        if content not in files.vocabulary and content not in contents:
            raise CheckpointError(
                f"{files.folder}: no file declares a {key}, and {shortened(content)} is not in the vocabulary; set "
                f"{key} in {CONFIG}"
            )
    try:
        check_vocabulary(files.vocabulary)
        description = TokenizerDescription(
            vocabulary=files.vocabulary,
            unknown=unknown,
            start=start,
            end=end,
            handle_chinese_chars=chinese,
            strip_accents=strip_accents,
            lowercase=lowercase,
            added=added,
        )
        description.build()
    except ConfigurationError as reason:
        raise CheckpointError(f"{files.folder}: {reason}") from None
    if files.tokenizer is not None:
        _check_agreement(files, description.to_json())
    return description, tokens.named["pad_token"].content


def _added_tokens(files: TokenizerFiles, tokens: SpecialTokens) -> tuple[AddedToken, ...]:
    """The added tokens with the ids that the `tokenizers` package gives them.

    Raises:
        CheckpointError: a file gives one another id.
    """
    tokenizer = Tokenizer(WordPiece(dict(files.vocabulary)))
    tokenizer.add_tokens(tokens.to_add)
    for content, identifier in tokens.expected_ids.items():
        if tokenizer.token_to_id(content) != identifier:
            raise CheckpointError(
                f"{files.folder}: the added token {shortened(content)} has the id {shortened(identifier)}, expected "
                f"{tokenizer.token_to_id(content)} after a vocabulary of {len(files.vocabulary)} tokens; the files are "
                "from different checkpoints"
            )
    return tuple(
        AddedToken(identifier, *(getattr(token, name) for name in ADDED_KEYS if name != "id"))
        for identifier, token in sorted(tokenizer.get_added_tokens_decoder().items())
    )


def _flag(files: TokenizerFiles, key: str) -> bool:
    """A flag of ``tokenizer_config.json``; all flags of BertTokenizer are true by default."""
    return bool(of_kind(f"{files.folder / CONFIG}: {key}", files.config.get(key, True), bool))


def _check_agreement(files: TokenizerFiles, built: Mapping[str, Any]) -> None:
    """Compares `files.tokenizer` with `built`, the JSON object of the rebuilt tokenizer.

    Raises:
        CheckpointError: they differ in something that ids depend on.
    """
    listed = files.tokenizer or {}
    where = f"{files.folder / TOKENIZER}"

    def compare(name: str, theirs: Any, ours: Any) -> None:
        if theirs != ours:
            reason = f"but transformers' BertTokenizer would use {shortened(ours)}, from {CONFIG} and its defaults"
            if files.is_general:
                reason = f"but a BERT tokenizer with the special tokens of {CONFIG} has {shortened(ours)}"
            raise CheckpointError(
                f"{where}: {shorten(name)} is {shortened(theirs)}, {reason}; correct {CONFIG} or save the tokenizer "
                "again"
            )

    def section(name: str) -> dict[str, Any]:
        value: dict[str, Any] = of_kind(f"{where}: {name}", listed.get(name) or {}, dict)
        return value

    for key in MODEL_KEYS:
        compare(f"model.{key}", section("model").get(key), built["model"][key])
    theirs, ours = _normalizer(section("normalizer")), _normalizer(built["normalizer"])
    for key in NORMALIZER_KEYS:
        compare(f"normalizer.{key}", theirs.get(key), ours[key])
    compare("pre_tokenizer.type", section("pre_tokenizer").get("type"), built["pre_tokenizer"]["type"])
    compare("post_processor", _enclosing_ids(section("post_processor")), _enclosing_ids(built["post_processor"]))
    present = {token["id"]: {key: token[key] for key in ADDED_KEYS} for token in built["added_tokens"]}
    for token in of_kind(f"{where}: added_tokens", listed.get("added_tokens", []), list):
        fields = {key: of_kind(f"{where}: added token", token, dict).get(key) for key in ADDED_KEYS}
        identifier = of_kind(f"{where}: added_tokens: id", fields["id"], int)
        compare(f"added token {shortened(fields['content'])}", fields, present.get(identifier))
    for name, side in (("truncation", "truncation_side"), ("padding", "padding_side")):
        direction = section(name).get("direction", "Right")
        if direction != "Right" and side not in files.config:
            raise CheckpointError(f"{where}: {name}.direction is {shortened(direction)}; only 'Right' is supported")


def _normalizer(section: Mapping[str, Any]) -> dict[str, Any]:
    """`section` with `strip_accents` null replaced by its meaning, the value of `lowercase`."""
    strip = section.get("strip_accents")
    return {**section, "strip_accents": section.get("lowercase") if strip is None else strip}


def _enclosing_ids(section: Mapping[str, Any]) -> Any:
    """(id before the text, id after it) of either kind of BERT post-processor; any other section unchanged."""
    match section:
        case {"type": "BertProcessing", "cls": [_, start], "sep": [_, end]}:
            return start, end
        case {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": str(start)}},
                {"Sequence": {"id": "A"}},
                {"SpecialToken": {"id": str(end)}},
            ],
            "special_tokens": dict(tokens),
        }:
            return _single_id(tokens.get(start)), _single_id(tokens.get(end))
        case _:
            return section


def _single_id(token: Any) -> Any:
    match token:
        case {"ids": [identifier]}:
            return identifier
        case _:
            return token
