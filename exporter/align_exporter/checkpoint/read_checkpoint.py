"""Reads a checkpoint folder: weights, image preprocessing and tokenizer, and checks that they fit each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_exporter.checkpoint.bert_tokenizer import describe_tokenizer
from align_exporter.checkpoint.tokenizer_files import CONFIG, TokenizerFiles, read_files
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel
from align_reference.source import CheckpointSource
from align_runtime.errors import CheckpointError
from align_runtime.json_files import of_kind, read_object
from align_runtime.manifest import ModelFacts
from align_runtime.preprocessing import ImagePreprocessing

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
NO_LIMIT = 10**20  # transformers writes 10^30 for "no limit" and treats anything above 10^20 as such
DEFAULT_MAX_LENGTH = 64  # tokens that AlignProcessor pads to where the tokenizer has no limit


@dataclass(frozen=True)
class TokenizerAssets:
    """The tokenizer of a checkpoint.

    Attributes:
        json: a ``tokenizer.json`` that gives the ids of transformers' BertTokenizer for this folder, every setting
            explicit, without truncation and padding. The same folder gives the same text.
        max_length: ``model_max_length`` of ``tokenizer_config.json``; None where there is no limit.
        pad_token_id: the id to pad with.
        vocab_size: highest id + 1, added tokens included: the number of rows that the embedding table needs.
    """

    json: str
    max_length: int | None
    pad_token_id: int
    vocab_size: int


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder."""

    model: AlignModel
    preprocessing: ImagePreprocessing
    tokenizer: TokenizerAssets
    facts: ModelFacts


def read_checkpoint(source: CheckpointSource, allow_pickle: bool) -> Checkpoint:
    """Reads weights, preprocessing and tokenizer and checks that they fit each other.

    Raises:
        CheckpointError, ConfigurationError: as `read_preprocessing`, `read_tokenizer`, `load_model` and
            `check_vocabulary`.
    """
    preprocessing = read_preprocessing(source.folder)
    tokenizer = read_tokenizer(source.folder)
    model = load_model(source.folder, allow_pickle=allow_pickle)
    text = model.config.text
    check_vocabulary(tokenizer, text.vocab_size)
    facts = ModelFacts(
        embedding_dim=model.config.projection_dim,
        temperature=float(model.temperature),
        max_length=min(tokenizer.max_length or DEFAULT_MAX_LENGTH, text.max_position_embeddings),
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text.vocab_size,
    )
    return Checkpoint(model, preprocessing, tokenizer, facts)


def read_preprocessing(folder: Path) -> ImagePreprocessing:
    """Reads the image preprocessing of a checkpoint folder.

    It is `image_processor` in ``processor_config.json`` (transformers 5) or ``preprocessor_config.json``. Where both
    exist, transformers uses the first; here they must agree.

    Raises:
        CheckpointError: neither exists, one is not readable, or they contradict each other.
        ConfigurationError: a key or value is not supported.
    """
    found: dict[str, ImagePreprocessing] = {}
    if (folder / PROCESSOR).exists():
        processor = read_object(folder / PROCESSOR, CheckpointError)
        if "image_processor" in processor:
            where = f"{folder / PROCESSOR}: image_processor"
            found[PROCESSOR] = ImagePreprocessing.from_hub(of_kind(where, processor["image_processor"], dict), where)
    if (folder / PREPROCESSOR).exists():
        config = read_object(folder / PREPROCESSOR, CheckpointError)
        found[PREPROCESSOR] = ImagePreprocessing.from_hub(config, str(folder / PREPROCESSOR))
    if not found:
        raise CheckpointError(
            f"{folder} has no image preprocessing; looked for {PREPROCESSOR} and for image_processor in {PROCESSOR}"
        )
    first, *others = found.values()
    for other in others:
        ours, theirs = first.to_json(), other.to_json()
        differing = "; ".join(f"{key}: {ours[key]} / {theirs[key]}" for key in ours if ours[key] != theirs[key])
        if differing:
            raise CheckpointError(
                f"{folder}: {PROCESSOR} and {PREPROCESSOR} contradict each other ({differing}); "
                f"transformers would use {PROCESSOR}; delete the wrong one"
            )
    return first


def read_tokenizer(folder: Path) -> TokenizerAssets:
    """Reads the tokenizer of a checkpoint folder; its ids are those of ``BertTokenizer.from_pretrained(folder)``.

    The files are ``tokenizer.json`` or else ``vocab.txt``, and ``tokenizer_config.json``, ``special_tokens_map.json``
    and ``added_tokens.json`` where they exist. Like transformers 5, it rebuilds the tokenizer from the vocabulary, the
    added tokens and ``tokenizer_config.json``, and refuses a ``tokenizer.json`` that contradicts the result.

    Raises:
        CheckpointError: a file is missing or malformed, the files disagree, or the tokenizer is not BERT's.
        ConfigurationError: a value has the wrong type.
    """
    files = read_files(folder)
    description, pad_token = describe_tokenizer(files)
    return TokenizerAssets(
        json=json.dumps(description.to_json(), indent=2, ensure_ascii=False) + "\n",
        max_length=_max_length(files),
        pad_token_id=description.ids[pad_token],
        vocab_size=description.size,
    )


def check_vocabulary(assets: TokenizerAssets, embedding_rows: int) -> None:
    """Checks that every id of the tokenizer has a row in the word embedding.

    Raises:
        CheckpointError: there are fewer rows than ids.
    """
    if assets.vocab_size > embedding_rows:
        raise CheckpointError(
            f"the tokenizer has ids up to {assets.vocab_size - 1}, the word embedding has {embedding_rows} rows; "
            "tokenizer and weights are from different checkpoints, or tokens were added without new rows"
        )


def _max_length(files: TokenizerFiles) -> int | None:
    """`model_max_length`, called `max_len` in older files; None for no limit."""
    name = "model_max_length" if "model_max_length" in files.config else "max_len"
    value: Any = files.config.get(name)
    if value is None:
        return None
    where = f"{files.folder / CONFIG}: {name}"
    length = of_kind(where, value, (int, float))
    if length > NO_LIMIT:
        return None
    if length != int(length) or length < 1:
        raise CheckpointError(f"{where} is {value!r}; expected a positive integer")
    return int(length)
