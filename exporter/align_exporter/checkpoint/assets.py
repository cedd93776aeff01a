"""What a checkpoint folder says about its inputs: image preprocessing and tokenizer, frozen for the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_exporter.checkpoint.bert_tokenizer import build
from align_exporter.checkpoint.tokenizer_files import TokenizerFiles, read_files
from align_runtime.errors import CheckpointError
from align_runtime.json_files import of_kind, read_object
from align_runtime.preprocessing import ImagePreprocessing

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
UNLIMITED = 10**20  # transformers writes 10^30 for "no limit" and takes anything above 10^20 for it


@dataclass(frozen=True)
class TokenizerAssets:
    """A checkpoint's tokenizer.

    Attributes:
        json: the text of a ``tokenizer.json`` that gives the ids of transformers' BertTokenizer for this folder, every
            setting explicit, without truncation and padding. The same folder gives the same text.
        max_length: ``model_max_length`` of ``tokenizer_config.json``; None where it names no limit.
        pad_token_id: the id to pad with.
        vocab_size: highest id + 1, added tokens included: the rows that the embedding table needs.
    """

    json: str
    max_length: int | None
    pad_token_id: int
    vocab_size: int


def read_preprocessing(folder: Path) -> ImagePreprocessing:
    """The image preprocessing of a checkpoint folder.

    Reads `image_processor` of ``processor_config.json`` (transformers 5) or ``preprocessor_config.json``. Where both
    are there, transformers takes the first; they must then mean the same.

    Raises:
        CheckpointError: neither is there, one is not readable, or they contradict each other.
        ConfigurationError: a key or value that is not understood.
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
                f"transformers would take {PROCESSOR}; delete the wrong one"
            )
    return first


def read_tokenizer(folder: Path) -> TokenizerAssets:
    """The tokenizer of a checkpoint folder, giving the ids of ``transformers.BertTokenizer.from_pretrained(folder)``.

    Reads ``tokenizer.json`` or else ``vocab.txt``, with ``tokenizer_config.json``, ``special_tokens_map.json`` and
    ``added_tokens.json`` where they are there. Like transformers 5 it rebuilds the tokenizer from the vocabulary, the
    added tokens and ``tokenizer_config.json``; a ``tokenizer.json`` that says otherwise is refused.

    Raises:
        CheckpointError: a file is missing or damaged, the files contradict each other, or it is no BERT tokenizer.
        ConfigurationError: a value of another type than it must have.
    """
    files = read_files(folder)
    backend, pad_token = build(files)
    pad_token_id = backend.token_to_id(pad_token)
    assert pad_token_id is not None  # build adds every special token
    return TokenizerAssets(
        json=backend.to_str(pretty=True) + "\n",
        max_length=_max_length(files),
        pad_token_id=pad_token_id,
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
    )


def check_vocabulary(assets: TokenizerAssets, embedding_rows: int) -> None:
    """Checks that every id of the tokenizer has a row in the word embedding.

    Raises:
        CheckpointError: there are fewer rows than ids.
    """
    if assets.vocab_size > embedding_rows:
        raise CheckpointError(
            f"the tokenizer has ids up to {assets.vocab_size - 1}, the word embedding has {embedding_rows} rows; "
            "tokenizer and weights are not of the same checkpoint, or tokens were added without new rows"
        )


def _max_length(files: TokenizerFiles) -> int | None:
    """`model_max_length`, or `max_len` as older files call it."""
    name = "model_max_length" if "model_max_length" in files.config else "max_len"
    value: Any = files.config.get(name)
    if value is None:
        return None
    where = f"{files.folder / 'tokenizer_config.json'}: {name}"
    length = of_kind(where, value, (int, float))
    if length > UNLIMITED:
        return None
    if length != int(length) or length < 1:
        raise CheckpointError(f"{where} is {value!r}; a positive integer was expected")
    return int(length)
