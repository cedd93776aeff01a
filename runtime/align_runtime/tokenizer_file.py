"""``tokenizer.json``: the one form of it that `align-export` writes and the runtime reads, a tokenizer of BERT.

The `tokenizers` package loads many other forms, and some of them crash: a regular expression that panics, a map of
characters that aborts the process, an added token that is nothing after normalization. So a file is never given to
it. The file is read as JSON, compared with what would have been written, and a tokenizer is built from the values.
Exporter and runtime share this module, so that neither takes what the other does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind, require

PREFIX = "##"  # of a token that continues a word
MAX_WORD = 100  # characters; a longer word is the unknown token
MAX_TOKENS = 1 << 20  # of a vocabulary; the largest published ones have 250,000
MAX_ID = 1 << 22
MAX_ADDED = 10_000  # they are searched in every text, and take 0.4 s to set up
MAX_TOKEN = 256  # characters of a token; only added tokens are found beyond MAX_WORD


@dataclass(frozen=True)
class AddedToken:
    """A token that is found before WordPiece splits the text; see `tokenizers.AddedToken`."""

    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> AddedToken:
        kinds = {"id": int, "content": str}
        return cls(**{each.name: require(where, values, each.name, kinds.get(each.name, bool)) for each in fields(cls)})


@dataclass(frozen=True)
class TokenizerDescription:
    """Everything that token ids depend on.

    Attributes:
        vocabulary: token → id.
        unknown: the token of the vocabulary for words that it lacks.
        start, end: the tokens around a text, [CLS] and [SEP].
        handle_chinese_chars, strip_accents, lowercase: of `tokenizers.normalizers.BertNormalizer`; `strip_accents` is
            that of `lowercase` where it is None.
        added: the added tokens, special ones included, in the order of their ids.

    Raises:
        ConfigurationError: a token, id or number of them is out of its bounds or contradicts another one.
    """

    vocabulary: Mapping[str, int]
    unknown: str
    start: str
    end: str
    handle_chinese_chars: bool
    strip_accents: bool | None
    lowercase: bool
    added: tuple[AddedToken, ...]

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        if self.unknown not in self.vocabulary:
            raise ConfigurationError(f"the vocabulary lacks the unknown token {shortened(self.unknown)}")
        self._check_added()
        for token in (self.start, self.end):
            if token not in self.ids:
                raise ConfigurationError(f"{shortened(token)}, which encloses every text, is not a token")
            if any(character.isspace() or character in ":$" for character in token):
                raise ConfigurationError(
                    f"{shortened(token)} cannot enclose a text: it has a space, a colon or a dollar"
                )

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token with its id."""
        return {**self.vocabulary, **{token.content: token.id for token in self.added}}

    @cached_property
    def size(self) -> int:
        """The highest id + 1: the rows that an embedding table needs."""
        return max(self.ids.values()) + 1

    def to_json(self) -> dict[str, Any]:
        """The document, as `tokenizers` would write it."""
        enclosing = dict.fromkeys((self.start, self.end))
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [asdict(token) for token in self.added],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": self.handle_chinese_chars,
                "strip_accents": self.strip_accents,
                "lowercase": self.lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [_special(self.start, 0), _sequence("A", 0), _special(self.end, 0)],
                "pair": [
                    *(_special(self.start, 0), _sequence("A", 0), _special(self.end, 0)),
                    *(_sequence("B", 1), _special(self.end, 1)),
                ],
                "special_tokens": {
                    token: {"id": token, "ids": [self.ids[token]], "tokens": [token]} for token in sorted(enclosing)
                },
            },
            "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": self.unknown,
                "continuing_subword_prefix": PREFIX,
                "max_input_chars_per_word": MAX_WORD,
                "vocab": dict(sorted(self.vocabulary.items(), key=lambda item: item[1])),
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TokenizerDescription:
        """Reads what `to_json` gives, and nothing else.

        Raises:
            ConfigurationError: a section is missing, unknown, of the wrong type, or not as `to_json` gives it.
        """
        model, normalizer = (
            require("the tokenizer", values, "model", dict),
            require("the tokenizer", values, "normalizer", dict),
        )
        start, end = _enclosing(values.get("post_processor"))
        added = require("the tokenizer", values, "added_tokens", list)
        if len(added) > MAX_ADDED:
            raise ConfigurationError(f"{len(added)} added tokens; expected at most {MAX_ADDED}")
        found = cls(
            vocabulary=require("model", model, "vocab", dict),
            unknown=require("model", model, "unk_token", str),
            start=start,
            end=end,
            handle_chinese_chars=require("normalizer", normalizer, "handle_chinese_chars", bool),
            strip_accents=require("normalizer", normalizer, "strip_accents", (bool, type(None))),
            lowercase=require("normalizer", normalizer, "lowercase", bool),
            added=tuple(AddedToken.from_json(of_kind("added_tokens", each, dict), "added_tokens") for each in added),
        )
        _check_equal(values, found.to_json(), "")
        return found

    def build(self) -> tokenizers.Tokenizer:
        """The tokenizer, without truncation and padding.

        Raises:
            ConfigurationError: an added token is nothing after normalization, or what another one is, or gets another
                id.
        """
        built = tokenizers.Tokenizer(WordPiece(dict(self.vocabulary), unk_token=self.unknown))
        normalizer = BertNormalizer(True, self.handle_chinese_chars, self.strip_accents, self.lowercase)
        built.normalizer = normalizer
        built.pre_tokenizer = BertPreTokenizer()
        contents: dict[str, str] = {}  # by what is left after normalization
        for token in self.added:
            if not token.normalized:
                continue
            left, shown = normalizer.normalize_str(token.content), shortened(token.content)
            if not left:
                raise ConfigurationError(f"of the added token {shown} nothing is left after normalization")
            if contents.setdefault(left, token.content) != token.content:  # the package would take one at random
                raise ConfigurationError(
                    f"the added tokens {shortened(contents[left])} and {shown} are the same after normalization"
                )
        flags = [{name: value for name, value in asdict(token).items() if name != "id"} for token in self.added]
        built.add_tokens([tokenizers.AddedToken(**each) for each in flags])
        for token in self.added:
            if built.token_to_id(token.content) != token.id:
                raise ConfigurationError(
                    f"the added token {shortened(token.content)} has the id {token.id}, expected "
                    f"{built.token_to_id(token.content)}"
                )
        built.post_processor = BertProcessing((self.end, self.ids[self.end]), (self.start, self.ids[self.start]))
        return built

    def _check_added(self) -> None:
        if len(self.added) > MAX_ADDED:
            raise ConfigurationError(f"{len(self.added)} added tokens; expected at most {MAX_ADDED}")
        taken = set(self.vocabulary.values())
        seen: set[str] = set()
        for token in self.added:
            _check_token(token.content, token.id)
            shown = shortened(token.content)
            if not token.content or token.content in seen:
                raise ConfigurationError(f"the added token {shown} is {'listed twice' if token.content else 'empty'}")
            if token.id != self.vocabulary.get(token.content, token.id):
                raise ConfigurationError(
                    f"the added token {shown} has the id {token.id}, and {self.vocabulary[token.content]} in the "
                    "vocabulary"
                )
            if token.content not in self.vocabulary and token.id in taken:
                raise ConfigurationError(f"the id {token.id} of the added token {shown} belongs to another token")
            taken.add(token.id)
            seen.add(token.content)


def check_vocabulary(vocabulary: Mapping[str, int]) -> None:
    """Raises ConfigurationError unless every token of `vocabulary` has an id of its own, within the bounds."""
    if len(vocabulary) > MAX_TOKENS:
        raise ConfigurationError(f"the vocabulary has {len(vocabulary)} tokens; expected at most {MAX_TOKENS}")
    for token, identifier in vocabulary.items():
        _check_token(token, identifier)
    if len(set(vocabulary.values())) < len(vocabulary):
        first: dict[int, str] = {}
        for token, identifier in vocabulary.items():
            if first.setdefault(identifier, token) != token:
                raise ConfigurationError(
                    f"the tokens {shortened(first[identifier])} and {shortened(token)} have the same id, {identifier}"
                )


def _check_token(token: str, identifier: Any) -> None:
    if len(token) > MAX_TOKEN:
        raise ConfigurationError(
            f"the token {shortened(token, 40)} has {len(token)} characters; expected at most {MAX_TOKEN}"
        )
    if type(identifier) is not int or not 0 <= identifier < MAX_ID:
        raise ConfigurationError(
            f"the id of {shortened(token)} is {shortened(identifier)}; expected an integer from 0 to {MAX_ID - 1}"
        )


def _special(token: str, type_id: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": type_id}}


def _sequence(name: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}


def _enclosing(section: Any) -> tuple[str, str]:
    """The tokens before and after a text in the post-processor `section`."""
    match section:
        case {"single": [{"SpecialToken": {"id": str(start)}}, _, {"SpecialToken": {"id": str(end)}}]}:
            return start, end
        case _:
            raise ConfigurationError(
                f"post_processor is {shortened(section)}; expected the template of BERT, a token before a text and one "
                "after it"
            )


def _check_equal(given: Any, written: Any, where: str) -> None:
    """Raises ConfigurationError, with the place, where `given` is not what would be `written`."""
    if type(given) is type(written) and json.dumps(given, sort_keys=True) == json.dumps(written, sort_keys=True):
        return  # compared as text, since 1, 1.0 and true are equal in Python
    if isinstance(given, dict) and isinstance(written, dict):
        for key in [*written, *(key for key in given if key not in written)]:
            _check_equal(given.get(key, MISSING), written.get(key, MISSING), f"{where}.{key}" if where else key)
    raise ConfigurationError(f"{shortened(where)} is {shortened(given)}; expected {shortened(written)}")


class _Missing:
    """A key that is not there."""

    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()
