"""Texts to token ids, equal to transformers' BertTokenizer, from the bundle's ``tokenizer.json``.

Threads and processes: a `Tokenizer` is immutable, so threads may share it. Batches use `encode_batch_fast`, which
releases the GIL (`encode`, for one text, does not) and runs on all cores that TOKENIZERS_PARALLELISM and
RAYON_NUM_THREADS allow. In a forked child the `tokenizers` package runs serially; versions before 0.23 print a notice.
No environment variable is set here, since that would affect the rest of the program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import tokenizers
from numpy.typing import NDArray

from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError, ConfigurationError, InputError
from align_runtime.json_files import read_object
from align_runtime.tokenizer_file import TokenizerDescription

FILE = "tokenizer.json"
MAX_BYTES = 32 << 20  # 30,000 tokens take 0.7 MB
MAX_LENGTH = 1 << 20
PANIC = "PanicException"  # of Rust, a BaseException that cannot be imported
MAX_TEXT_CHARACTERS = 1_000_000  # takes seconds before it is truncated; a caption has about 60


class Tokenizer:
    """A BERT WordPiece tokenizer with a fixed maximum length.

    Attributes:
        max_length: maximum number of ids of a text, [CLS] and [SEP] included.
        pad_token_id: the id that `pad` pads with.
        vocab_size: highest id + 1, added tokens included; the number of rows that an embedding table needs.
    """

    def __init__(self, backend: tokenizers.Tokenizer, vocab_size: int, max_length: int, pad_token_id: int) -> None:
        """See `from_file`. `backend` is as `TokenizerDescription.build` returns it."""
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.pad_token_id = pad_token_id
        special = backend.num_special_tokens_to_add(False)
        if not special < max_length <= MAX_LENGTH:
            raise ConfigurationError(f"max_length is {max_length}; expected {special + 1} to {MAX_LENGTH}")
        if not 0 <= pad_token_id < self.vocab_size:
            raise ConfigurationError(
                f"pad_token_id is {pad_token_id}; expected an id of the vocabulary, 0 to {self.vocab_size - 1}"
            )
        backend.enable_truncation(max_length)  # from the right; special tokens are kept
        self._backend = backend

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], max_length: int, pad_token_id: int) -> Tokenizer:
        """Reads a ``tokenizer.json`` as `align-export` writes it, see `align_runtime.tokenizer_file`.

        Args:
            path: the file.
            max_length: maximum number of ids of a text, special tokens included.
            pad_token_id: the id to pad with.

        Raises:
            BundleError: the file is missing, unreadable, or another tokenizer.
            ConfigurationError: `max_length` or `pad_token_id` is out of range.
        """
        values = read_object(Path(path), BundleError, MAX_BYTES)
        try:
            description = TokenizerDescription.from_json(values)
            with panics_as_errors(str(path)):
                backend = description.build()
        except ConfigurationError as reason:
            raise BundleError(f"{path}: {reason}; it is not as align-export writes it, export again") from None
        return cls(backend, description.size, max_length, pad_token_id)

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Tokenizer:
        """The tokenizer of `bundle`, whose ids all have a row in the embedding table. Its sha256 is compared.

        Raises:
            BundleError: as `from_file`, another hash, or ids beyond the table.
            ConfigurationError: as `from_file`.
        """
        facts = bundle.manifest.model
        tokenizer = cls.from_file(bundle.check_hash(FILE), facts.max_length, facts.pad_token_id)
        if tokenizer.vocab_size > facts.vocab_size:
            raise BundleError(
                f"{bundle.folder}: {FILE} has ids up to {tokenizer.vocab_size - 1}, but the model has "
                f"{facts.vocab_size} token embeddings; they are from different checkpoints, export again"
            )
        return tokenizer

    def encode(self, texts: Sequence[str]) -> list[NDArray[numpy.int64]]:
        """The ids of each text, from [CLS] to [SEP], truncated to `max_length` and not padded.

        Equal to ``BertTokenizer(texts, truncation=True, max_length=max_length)``. The empty text is [CLS] [SEP].

        Returns:
            one int64 (length,) per text.

        Raises:
            InputError: `texts` is not a list of str, or a text has lone surrogates or more than
                `MAX_TEXT_CHARACTERS` characters; `index` is its position.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InputError(f"expected a list of texts, got {type(texts).__name__}; put one text in a list")
        for index, text in enumerate(texts):
            check_text(text, index)
        with panics_as_errors("the tokenizer of this bundle"):
            encodings = self._backend.encode_batch_fast(list(texts))
        return [numpy.array(encoding.ids, numpy.int64) for encoding in encodings]

    def pad(
        self, rows: Sequence[NDArray[numpy.int64]], length: int | None = None
    ) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
        """Pads `rows` on the right to one length.

        Args:
            rows: ids as `encode` returns them.
            length: the length to pad to; None for that of the longest row.

        Returns:
            (input_ids, attention_mask), int64 (n, length) each; the mask is 1 for ids and 0 for padding.

        Raises:
            InputError: a row is longer than `length`.
        """
        lengths = numpy.array([len(row) for row in rows], numpy.int64)
        longest = int(lengths.max(initial=0))
        width = longest if length is None else length
        if longest > width:
            raise InputError(f"a text has {longest} ids; expected at most {width}", int(lengths.argmax()))
        input_ids = numpy.full((len(rows), width), self.pad_token_id, numpy.int64)
        for row, ids in zip(input_ids, rows, strict=True):
            row[: len(ids)] = ids
        return input_ids, (numpy.arange(width) < lengths[:, None]).astype(numpy.int64)


@contextmanager
def panics_as_errors(subject: str) -> Iterator[None]:
    """Raises BundleError in place of a panic of the `tokenizers` package, which no ``except Exception`` would catch."""
    try:
        yield
    except BaseException as reason:
        if type(reason).__name__ != PANIC:
            raise
        raise BundleError(f"{subject}: the tokenizers package failed ({reason}); export the checkpoint again") from None


def check_text(text: str, index: int) -> None:
    """Raises InputError with `index` unless `text` can be tokenized; see `Tokenizer.encode`."""
    if not isinstance(text, str):
        raise InputError(f"expected a str, got {type(text).__name__}", index)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InputError(f"the text has {len(text)} characters; expected at most {MAX_TEXT_CHARACTERS}", index)
    try:
        text.encode()
    except UnicodeEncodeError as reason:
        raise InputError(
            f"the text has a lone surrogate {text[reason.start]!r} at character {reason.start}, which is not valid "
            "Unicode; decode it with errors='replace'",
            index,
        ) from None
