"""All that an export reads of a checkpoint folder: weights, processor, tokenizer, and whether they fit each other."""

from __future__ import annotations

from dataclasses import dataclass

from align_exporter.checkpoint.assets import TokenizerAssets, check_vocabulary, read_preprocessing, read_tokenizer
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel
from align_reference.source import CheckpointSource
from align_runtime.manifest import ModelFacts
from align_runtime.preprocessing import ImagePreprocessing

DEFAULT_MAX_LENGTH = 64  # what AlignProcessor pads to where the tokenizer names no limit of its own


@dataclass(frozen=True)
class Checkpoint:
    """All that a checkpoint folder holds, read."""

    model: AlignModel
    preprocessing: ImagePreprocessing
    tokenizer: TokenizerAssets
    facts: ModelFacts


def read_checkpoint(source: CheckpointSource, allow_pickle: bool) -> Checkpoint:
    """Reads weights, processor and tokenizer and checks that they fit each other.

    Raises:
        CheckpointError, ConfigurationError: as the readers of the three.
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
