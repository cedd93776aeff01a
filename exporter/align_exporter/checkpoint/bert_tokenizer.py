"""A BERT tokenizer from its files, with the ids that transformers' BertTokenizer (5.23) gives.

transformers 5 no longer uses a ``tokenizer.json`` as it is: BertTokenizer takes the vocabulary from it and rebuilds
normalizer, pre-tokenizer and post-processor from ``tokenizer_config.json``, whose absent keys get the class defaults.
`build` does the same, step by step, and refuses a ``tokenizer.json`` that describes another tokenizer.
"""

from __future__ import annotations

import json

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from align_exporter.checkpoint.special_tokens import read_special_tokens
from align_exporter.checkpoint.tokenizer_agreement import check_agreement
from align_exporter.checkpoint.tokenizer_files import CONFIG, TokenizerFiles
from align_runtime.errors import CheckpointError
from align_runtime.json_files import of_kind


def build(files: TokenizerFiles) -> tuple[Tokenizer, str]:
    """(the tokenizer, its padding token); neither truncating nor padding.

    Raises:
        CheckpointError: a special token is missing or malformed, or ``tokenizer.json`` contradicts the result.
        ConfigurationError: a value of another type than it must have.
    """
    tokens = read_special_tokens(files)
    unknown, start, end = (tokens.named[key].content for key in ("unk_token", "cls_token", "sep_token"))
    if unknown not in files.vocabulary:
        raise CheckpointError(f"{files.folder}: the vocabulary lacks the unknown token {unknown!r}")
    tokenizer = Tokenizer(WordPiece(dict(files.vocabulary), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(files, "tokenize_chinese_chars"),
        strip_accents=None if files.config.get("strip_accents") is None else _flag(files, "strip_accents"),
        lowercase=_flag(files, "do_lower_case"),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_tokens(tokens.to_add)
    for content, identifier in tokens.expected_ids.items():
        if tokenizer.token_to_id(content) != identifier:
            raise CheckpointError(
                f"{files.folder}: the added token {content!r} has the id {identifier}, but would get "
                f"{tokenizer.token_to_id(content)} after a vocabulary of {len(files.vocabulary)} tokens; files of "
                "different checkpoints are mixed"
            )
    try:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start}:0 $A:0 {end}:0",
            pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((start, end))],
        )
    except ValueError as reason:  # a token with a space or a colon
        raise CheckpointError(f"{files.folder}: {start!r} and {end!r} cannot frame a text: {reason}") from None
    if files.tokenizer is not None:
        check_agreement(files, json.loads(tokenizer.to_str()))
    return tokenizer, tokens.named["pad_token"].content


def _flag(files: TokenizerFiles, key: str) -> bool:
    """A flag of the configuration; those of the class are true unless said otherwise."""
    return bool(of_kind(f"{files.folder / CONFIG}: {key}", files.config.get(key, True), bool))
