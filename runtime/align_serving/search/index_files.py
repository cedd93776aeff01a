"""The folder of an index, beside the embeddings or where the user says.

::

    index-exact/ index.json     what it was built of, and sizes
                 rows.bin       the rows as they are stored, one after another
                 ids, sources   strings, see `strings`
                 approximate.faiss   not in index-exact
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import parse_object
from align_runtime.regular_files import read_regular
from align_serving.embed.reading import StoredEmbeddings

SCHEMA_VERSION = 1
INDEX_NAME, ROWS_FILE, IDS, SOURCES = "index.json", "rows.bin", "ids", "sources"
MAX_INDEX_JSON = 1 << 20
PATH_DIGITS = 12  # of the digest of a path


@dataclass(frozen=True)
class IndexFacts:
    """``index.json``.

    Attributes:
        binding: digest of the job and the shards that the index was built of, see `binding`.
        kind: ``exact``, or a key of `APPROXIMATIONS`.
        rows, embedding_dim, dtype: of the embeddings.
        shown: rows whose text or image was found.
        problem: why others were not.
        files: sizes in bytes by name.
        recall: of an approximate index at 10 against exact search, see `recall`.
    """

    binding: str
    kind: str
    rows: int
    embedding_dim: int
    dtype: str
    shown: int
    problem: str | None
    files: dict[str, int]
    recall: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"align_search": SCHEMA_VERSION, **asdict(self)}


def binding(stored: StoredEmbeddings) -> str:
    """A digest of what the embeddings are: their job, the bundle in it, and every finished shard."""
    value = [stored.job, [asdict(record) for record in stored.records]]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def index_folder(stored: StoredEmbeddings, kind: str, parent: Path | None) -> Path:
    """Where the index `kind` of `stored` is kept: with the embeddings, or in `parent`, as may be those of others."""
    if parent is None:
        return stored.folder / f"index-{kind}"
    folder = stored.folder.resolve()
    return parent / f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:PATH_DIGITS]}-{kind}"


def read_facts(folder: Path) -> IndexFacts | None:
    """What ``index.json`` says; None where there is none of this version."""
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = parse_object(
            read_regular(path, MAX_INDEX_JSON, ConfigurationError), str(path), ConfigurationError
        )
        if values.pop("align_search", None) != SCHEMA_VERSION:
            return None
        return IndexFacts(**values)
    except (ConfigurationError, TypeError):
        return None


def whole_facts(folder: Path) -> IndexFacts | None:
    """As `read_facts`; None also where a file of the index is missing or has another size."""
    facts = read_facts(folder)
    files = facts.files.items() if facts else ()
    whole = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files)
    return facts if whole else None
