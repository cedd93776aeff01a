"""Reads a checkpoint folder: weights, image preprocessing and tokenizer, and checks that they fit each other.

With random weights the folder needs a ``config.json`` only; other files are used where they are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align_exporter import builtin_samples
from align_exporter.checkpoint import stand_ins
from align_exporter.checkpoint.bert_tokenizer import describe_tokenizer
from align_exporter.checkpoint.tokenizer_files import CONFIG, TokenizerFiles, read_files
from align_exporter.export_options import ExportOptions
from align_reference.checkpoint import read_configuration, read_model
from align_reference.config import MAX_IMAGE_SIDE
from align_reference.config_reading import without_unknown
from align_reference.files import read_json
from align_reference.model import AlignModel
from align_reference.random_weights import random_model
from align_reference.source import CheckpointSource
from align_runtime.errors import CheckpointError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.hub_preprocessing import KNOWN_KEYS
from align_runtime.images import preprocess
from align_runtime.json_files import of_kind
from align_runtime.manifest import ModelFacts
from align_runtime.preprocessing import ImagePreprocessing

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
NO_LIMIT = 10**20  # transformers writes 10^30 for "no limit" and treats anything above 10^20 as such
PHOTOGRAPHS = 4  # built-in images that the statistics of random weights are measured on; eight give no better ones
MIN_MAX_LENGTH = 2  # [CLS] and [SEP]
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
    """The contents of a checkpoint folder.

    Attributes:
        notes: a line for everything of its files that was ignored or renamed.
    """

    model: AlignModel
    preprocessing: ImagePreprocessing
    tokenizer: TokenizerAssets
    facts: ModelFacts
    notes: tuple[str, ...]


def read_checkpoint(source: CheckpointSource, options: ExportOptions) -> Checkpoint:
    """Reads weights, preprocessing and tokenizer and checks that they fit each other.

    Raises:
        CheckpointError, ConfigurationError: as `read_preprocessing`, `read_tokenizer`, `read_model`, `random_model` and
            `check_vocabulary`.
    """
    folder, seed = source.folder, options.random_weights
    notes: list[str] = []
    ignored = notes if options.ignore_unknown_keys else None
    config = read_configuration(folder, ignored)
    preprocessing = read_preprocessing(
        folder, ignored, None if seed is None else stand_ins.preprocessing(config.vision)
    )
    text = config.text
    tokenizer = read_tokenizer(folder, ignored, None if seed is None else stand_ins.vocabulary(text.vocab_size))
    check_vocabulary(tokenizer, text.vocab_size)
    if seed is None:
        loaded = read_model(folder, config, allow_pickle=options.allow_pickle)
        model = loaded.model
        notes += loaded.renamed
    else:
        photographs = preprocessing.normalize(preprocess(builtin_samples.images()[:PHOTOGRAPHS], preprocessing))
        model = random_model(config, seed, torch.from_numpy(photographs))
    facts = ModelFacts(
        embedding_dim=config.projection_dim,
        temperature=float(model.temperature),
        max_length=min(tokenizer.max_length or DEFAULT_MAX_LENGTH, text.max_position_embeddings),
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text.vocab_size,
    )
    return Checkpoint(model, preprocessing, tokenizer, facts, tuple(notes))


def read_preprocessing(
    folder: Path, ignored: list[str] | None = None, stand_in: ImagePreprocessing | None = None
) -> ImagePreprocessing:
    """Reads the image preprocessing of a checkpoint folder.

    It is `image_processor` in ``processor_config.json`` (transformers 5) or ``preprocessor_config.json``. Where both
    exist, transformers uses the first; here they must agree.

    Args:
        ignored: gets a line for each key that is unknown; without it they are refused.
        stand_in: what to return where neither exists.

    Raises:
        CheckpointError: neither exists, one is not readable, or they contradict each other.
        ConfigurationError: a key or value is not supported, or the images are too large.
    """
    found: dict[str, ImagePreprocessing] = {}
    for name in (PROCESSOR, PREPROCESSOR):
        if not os.path.lexists(folder / name):
            continue
        where, config = f"{folder / name}", read_json(folder / name)
        if name == PROCESSOR:
            if "image_processor" not in config:
                continue
            where = f"{where}: image_processor"
            config = of_kind(where, config["image_processor"], dict)
        if ignored is not None:
            config = without_unknown(config, KNOWN_KEYS, name, ignored)
        found[name] = ImagePreprocessing.from_hub(config, where)
        _check_size(found[name], where)
    if not found:
        if stand_in is not None:
            return stand_in
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


def _check_size(preprocessing: ImagePreprocessing, where: str) -> None:
    if max(preprocessing.output_size) > MAX_IMAGE_SIDE:
        height, width = preprocessing.output_size
        raise ConfigurationError(
            f"{where}: images of {height}×{width} pixels; at most {MAX_IMAGE_SIDE} a side are supported"
        )


def read_tokenizer(
    folder: Path, ignored: list[str] | None = None, stand_in: Mapping[str, int] | None = None
) -> TokenizerAssets:
    """Reads the tokenizer of a checkpoint folder; its ids are those of ``BertTokenizer.from_pretrained(folder)``.

    The files are ``tokenizer.json`` or else ``vocab.txt``, and ``tokenizer_config.json``, ``special_tokens_map.json``
    and ``added_tokens.json`` where they exist. Like transformers 5, it rebuilds the tokenizer from the vocabulary, the
    added tokens and ``tokenizer_config.json``, and refuses a ``tokenizer.json`` that contradicts the result.

    Args:
        ignored: gets a line for each unknown key of ``tokenizer_config.json``; without it they are refused.
        stand_in: the vocabulary to take if no file has one.

    Raises:
        CheckpointError: a file is missing or malformed, the files disagree, or the tokenizer is not BERT's.
        ConfigurationError: a value has the wrong type.
    """
    files = read_files(folder, ignored, stand_in)
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
    if length != int(length) or length < MIN_MAX_LENGTH:
        raise CheckpointError(f"{where} is {shortened(value)}; expected an integer of {MIN_MAX_LENGTH} or more")
    return int(length)
