"""Texts to token ids, equal to transformers' BertTokenizer, from the bundle's ``tokenizer.json``.

Threads and processes: a `Tokenizer` is immutable, so threads may share it. Batches use `encode_batch_fast`, which
releases the GIL (`encode`, for one text, does not) and runs on all cores that TOKENIZERS_PARALLELISM and
RAYON_NUM_THREADS allow. In a forked child the `tokenizers` package runs serially; versions before 0.23 print a notice.
No environment variable is set here, since that would affect the rest of the program.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy
import tokenizers
from numpy.typing import NDArray
from tokenizers.models import WordPiece

from align_runtime.errors import BundleError, ConfigurationError, InputError
from align_runtime.json_files import MAX_JSON_BYTES

MAX_TEXT_CHARACTERS = 1_000_000  # takes seconds before it is truncated; a caption has about 60


class Tokenizer:
    """A BERT WordPiece tokenizer with a fixed maximum length.

    Attributes:
        max_length: maximum number of ids of a text, [CLS] and [SEP] included.
        pad_token_id: the id that `pad` pads with.
        vocab_size: highest id + 1, added tokens included; the number of rows that an embedding table needs.
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int, pad_token_id: int) -> None:
        """Replaces the truncation and padding of `backend`. See `from_file`."""
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.max_length = max_length
        self.pad_token_id = pad_token_id
        special = backend.num_special_tokens_to_add(False)
        if max_length <= special:
            raise ConfigurationError(f"max_length is {max_length}; expected at least {special + 1}")
        if not 0 <= pad_token_id < self.vocab_size:
            raise ConfigurationError(
                f"pad_token_id is {pad_token_id}; expected an id of the vocabulary, 0 to {self.vocab_size - 1}"
            )
        backend.no_padding()
        backend.enable_truncation(max_length)  # from the right; special tokens are kept
        self._backend = backend

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], max_length: int, pad_token_id: int) -> Tokenizer:
        """Reads a ``tokenizer.json`` with a WordPiece model. Its own truncation and padding are ignored.

        Args:
            path: the file.
            max_length: maximum number of ids of a text, special tokens included.
            pad_token_id: the id to pad with.

        Raises:
            BundleError: the file is missing, unreadable, or not a WordPiece tokenizer.
            ConfigurationError: `max_length` or `pad_token_id` is out of range.
        """
        try:
            size = Path(path).stat().st_size
            if size > MAX_JSON_BYTES:
                raise BundleError(f"{path} has {size} bytes; expected a tokenizer of at most {MAX_JSON_BYTES}")
            backend = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(f"{path} does not exist; export the bundle again") from None
        except OSError as reason:
            raise BundleError(f"{path} cannot be read: {reason.strerror}") from None
        except BundleError:
            raise
        except Exception as reason:  # UnicodeDecodeError, and tokenizers raises Exception itself
            raise BundleError(f"{path} is not a tokenizer.json: {reason}") from None
        model = backend.model
        if not isinstance(model, WordPiece):
            raise BundleError(f"{path} has a {type(model).__name__} model; expected WordPiece, as for BERT")
        if model.token_to_id(model.unk_token) is None:
            raise BundleError(f"{path}: the vocabulary does not contain its unknown token {model.unk_token!r}")
        return cls(backend, max_length, pad_token_id)

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
