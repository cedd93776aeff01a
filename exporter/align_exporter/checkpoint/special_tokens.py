"""Reads the special and added tokens of a checkpoint from up to four files, with the precedence of transformers 5.23.

If ``tokenizer_config.json`` has `added_tokens_decoder`, no other file is read. Otherwise ``special_tokens_map.json``
overrides the named tokens of ``tokenizer_config.json``, and the added tokens are those of ``added_tokens.json`` and of
`added_tokens` in ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from align_exporter.checkpoint.tokenizer_files import (
    ADDED_TOKENS,
    CONFIG,
    EXTRA_TOKENS,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER,
    TokenizerFiles,
)
from align_runtime.errors import CheckpointError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind

DEFAULTS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
REQUIRED = ("unk_token", "sep_token", "pad_token", "cls_token")
MAX_ID_DIGITS = 10  # ids have 32 bits
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that are matched before WordPiece.

    Attributes:
        named: key such as ``pad_token`` → token.
        to_add: all of them, in the order in which new ones get their ids.
        expected_ids: content → id, for the tokens whose id is in a file.
    """

    named: Mapping[str, AddedToken]
    to_add: list[AddedToken]
    expected_ids: Mapping[str, int]


def read_special_tokens(files: TokenizerFiles) -> SpecialTokens:
    """Collects the special and added tokens of `files`.

    Raises:
        CheckpointError: a required token is null, a token is malformed, or two entries contradict each other.
        ConfigurationError: a value has the wrong type.
    """
    declared = _declared(files)
    named = {key: _token(value, key, special=True) for key, value in DEFAULTS.items()}
    for key, (value, where) in declared.items():
        if value is not None:
            named[key] = _token(value, where, special=True)
        elif key in REQUIRED:
            raise CheckpointError(f"{where} is null; expected a token, BERT needs it")
        else:
            named.pop(key, None)
    extra = [AddedToken(content, special=True) for content in _extra(files)]
    contents = set() if files.is_general else {token.content for token in named.values()}
    added = _added(files, contents, declared)
    # The general classes have no named tokens but those that a file declares.
    to_name = [key for key in NAMED_TOKENS if key in named and (key in declared or not files.is_general)]
    unlisted = {token.content: token for token in [named[key] for key in to_name] + extra}
    for token in added.values():
        unlisted.pop(token.content, None)
    in_order = [added[identifier] for identifier in sorted(added)] + list(unlisted.values())
    return SpecialTokens(named, in_order, {token.content: identifier for identifier, token in added.items()})


def _legacy(files: TokenizerFiles) -> bool:
    """Whether files besides ``tokenizer_config.json`` are read."""
    return "added_tokens_decoder" not in files.config


def _declared(files: TokenizerFiles) -> dict[str, tuple[Any, str]]:
    """key → (value, file and key) of the named tokens that are in a file."""
    found = {key: (files.config[key], f"{files.folder / CONFIG}: {key}") for key in NAMED_TOKENS if key in files.config}
    if _legacy(files):
        for key, value in files.special_tokens.items():
            where = f"{files.folder / SPECIAL_TOKENS}: {key}"
            if key in NAMED_TOKENS:
                found[key] = value, where
            elif key not in EXTRA_TOKENS:
                raise CheckpointError(
                    f"{where} is not understood; expected one of {', '.join((*NAMED_TOKENS, *EXTRA_TOKENS))}"
                )
    return found


def _extra(files: TokenizerFiles) -> list[str]:
    """The special tokens without a name. Where several files list them, they must agree."""
    found: dict[str, list[str]] = {}
    for name, source in ((CONFIG, files.config), (SPECIAL_TOKENS, files.special_tokens if _legacy(files) else {})):
        for key in EXTRA_TOKENS:
            if source.get(key) not in (None, {}):  # transformers 4 wrote {} for an empty list
                where = f"{files.folder / name}: {key}"
                found[where] = [_text(where, value) for value in of_kind(where, source[key], list)]
    if len({tuple(tokens) for tokens in found.values()}) > 1:
        raise CheckpointError(f"{' and '.join(found)} contradict each other; keep one")
    return next(iter(found.values()), [])


def _added(
    files: TokenizerFiles, named: Collection[str], declared: Mapping[str, tuple[Any, str]]
) -> dict[int, AddedToken]:
    """id → added token. Tokens in `named` are special whatever their flag is."""
    added: dict[int, AddedToken] = {}
    if not _legacy(files):
        where = f"{files.folder / CONFIG}: added_tokens_decoder"
        for key, value in of_kind(where, files.config["added_tokens_decoder"], dict).items():
            if not key.isdecimal() or len(key) > MAX_ID_DIGITS:
                raise CheckpointError(f"{where}: the key {shortened(key)} is not a token id")
            added[int(key)] = _listed(value, f"{where}: {key}", named)
        return added
    special = _treated_as_special(files, declared)
    for content, identifier in files.added_tokens.items():
        where = f"{files.folder / ADDED_TOKENS}: {shortened(content)}"
        flags = {"normalized": content not in special, "special": content in special}
        added[of_kind(where, identifier, int)] = _listed({"content": content, **flags}, where, named)
    where = f"{files.folder / TOKENIZER}: added_tokens"
    for value in of_kind(where, (files.tokenizer or {}).get("added_tokens", []), list):
        identifier = of_kind(f"{where}: id", of_kind(where, value, dict).get("id"), int)
        added[identifier] = _listed(value, f"{where}: {identifier}", named)
    return added


def _treated_as_special(files: TokenizerFiles, declared: Mapping[str, tuple[Any, str]]) -> set[str]:
    """The tokens of ``added_tokens.json`` that transformers treats as special when it reads that file.

    These are the tokens named in the other files, but not the defaults of the class, not objects in
    ``tokenizer_config.json``, and not `additional_special_tokens` in ``special_tokens_map.json``.
    """
    known = {value for value, _ in declared.values() if isinstance(value, str)}
    for key, (value, _) in declared.items():
        if isinstance(value, dict) and key in files.special_tokens:
            known.add(value["content"])
    if any(files.config.get(key) for key in EXTRA_TOKENS) or files.special_tokens.get("extra_special_tokens"):
        known.update(_extra(files))
    return known


def _listed(value: Any, where: str, named: Collection[str]) -> AddedToken:
    token = _token(of_kind(where, value, dict), where, special=False)
    token.special = token.special or token.content in named
    return token


def _token(value: Any, where: str, special: bool) -> AddedToken:
    """A token from a string or from an object with the fields of `AddedToken`; special if either argument says so."""
    if isinstance(value, str):
        return AddedToken(_text(where, value), special=special)
    fields = {key: field for key, field in of_kind(where, value, dict).items() if key not in ("__type", "id")}
    content = _text(f"{where}: content", fields.pop("content", None))
    if unknown := sorted(set(fields) - set(FLAGS)):
        raise CheckpointError(
            f"{where}: the fields {shortened(unknown)} are not understood; expected content, {', '.join(FLAGS)}"
        )
    flags = {key: of_kind(f"{where}: {key}", flag, bool) for key, flag in fields.items()}
    return AddedToken(content, **{**flags, "special": special or flags.get("special", False)})


def _text(where: str, value: Any) -> str:
    content: str = of_kind(where, value, str)
    if not content:
        raise CheckpointError(f"{where} is an empty token")
    return content
