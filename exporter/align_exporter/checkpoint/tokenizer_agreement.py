"""Whether a ``tokenizer.json`` describes the tokenizer that was rebuilt from the vocabulary and the configuration.

transformers would not look: it would silently use the rebuilt one. A checkpoint that it saved agrees; one that does
not was edited by hand or put together from two, and one of its files is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_exporter.checkpoint.tokenizer_files import CONFIG, TOKENIZER, TokenizerFiles
from align_runtime.errors import CheckpointError
from align_runtime.json_files import of_kind

MODEL_KEYS = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")
NORMALIZER_KEYS = ("type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
ADDED_KEYS = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")


def check_agreement(files: TokenizerFiles, built: Mapping[str, Any]) -> None:
    """Compares `files.tokenizer` with `built`, the object of the rebuilt ``tokenizer.json``.

    Raises:
        CheckpointError: something that decides over the ids is different.
    """
    listed = files.tokenizer or {}
    where = f"{files.folder / TOKENIZER}"

    def compare(name: str, theirs: Any, ours: Any) -> None:
        if theirs != ours:
            raise CheckpointError(
                f"{where}: {name} is {theirs!r}, but with {CONFIG} and the defaults of transformers' BertTokenizer, "
                f"which is what transformers uses, it is {ours!r}; correct {CONFIG} or save the tokenizer again"
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
    compare("post_processor", _frame(section("post_processor")), _frame(built["post_processor"]))
    present = {token["id"]: {key: token[key] for key in ADDED_KEYS} for token in built["added_tokens"]}
    for token in of_kind(f"{where}: added_tokens", listed.get("added_tokens", []), list):
        fields = {key: of_kind(f"{where}: added token", token, dict).get(key) for key in ADDED_KEYS}
        identifier = of_kind(f"{where}: added_tokens: id", fields["id"], int)
        compare(f"added token {fields['content']!r}", fields, present.get(identifier))
    for name, side in (("truncation", "truncation_side"), ("padding", "padding_side")):
        direction = section(name).get("direction", "Right")
        if direction != "Right" and side not in files.config:
            raise CheckpointError(f"{where}: {name}.direction is {direction!r}; only 'Right' is supported")


def _normalizer(section: Mapping[str, Any]) -> dict[str, Any]:
    """`strip_accents` null means: as `lowercase`."""
    strip = section.get("strip_accents")
    return {**section, "strip_accents": section.get("lowercase") if strip is None else strip}


def _frame(section: Mapping[str, Any]) -> Any:
    """(id before the text, id after it) of either kind of BERT post-processor; anything else as it is."""
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
