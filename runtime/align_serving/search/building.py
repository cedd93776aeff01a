"""Builds an index in a folder that takes the place of an older one when it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError
from align_runtime.folder_exchange import new_folder
from align_runtime.folder_exchange import replace as put_in_place
from align_runtime.progress import Progress
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.output import ROWS_NAME
from align_serving.embed.reading import StoredEmbeddings
from align_serving.search.approximate import EXACT, training_rows, write_approximate
from align_serving.search.index_files import IDS, INDEX_NAME, ROWS_FILE, SOURCES, IndexFacts, binding
from align_serving.search.sources import UNKNOWN, Sources
from align_serving.search.strings import StringsWriter, mapped

BLOCK_BYTES = 16 << 20  # of rows as float32, which are scored at once


def build_index(
    stored: StoredEmbeddings,
    kind: str,
    folder: Path,
    progress: Progress,
    measure: Callable[[Path, IndexFacts], float],
) -> None:
    """Writes the index `kind` of `stored` to `folder`; a search that has the older one open goes on with it.

    Args:
        measure: gives the recall of an approximate index in a folder.

    Raises:
        ConfigurationError: there are no rows, a shard is not as the ledger says, or nothing can be written there.
        BackendUnavailableError: faiss is not installed.
    """
    if not stored.rows:
        raise ConfigurationError(f"{stored.folder} has no rows to search; its errors.jsonl says why")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as new:
            facts = _write(stored, kind, new, progress)
            if kind != EXACT:
                with progress.phase("comparing with exact search"):
                    facts = replace(facts, recall=measure(new, facts))
            (new / INDEX_NAME).write_text(json.dumps(facts.to_json()), encoding="utf-8")
            put_in_place(new, folder, INDEX_NAME)
    except OSError as reason:
        raise ConfigurationError(
            f"no index can be written to {folder} ({reason.strerror or reason}); make room or the folder writable, or "
            "name another one with --index-folder"
        ) from None


def _write(stored: StoredEmbeddings, kind: str, new: Path, progress: Progress) -> IndexFacts:
    job = stored.job
    sources, shown = Sources(stored), 0
    ids_file, sources_file = StringsWriter(new / IDS), StringsWriter(new / SOURCES)
    with progress.phase(f"copying {stored.rows:,} rows"), (new / ROWS_FILE).open("wb") as file:
        _check_sizes(stored)
        for record, (ids, rows) in zip(stored.records, stored.stored(), strict=True):
            file.write(np.ascontiguousarray(rows).data)
            ids_file.add(id.encode("utf-8", "surrogatepass") for id in ids)
            found = sources.of_shard(record.items, record.digest, ids)
            shown += sum(source != UNKNOWN for source in found)
            sources_file.add(found)
        ids_file.close()
        sources_file.close()
    if kind != EXACT:
        with progress.phase(f"building {kind}"):
            stored_rows = open_rows(new, job["dtype"], stored.rows, job["embedding_dim"])
            chosen = _spread(stored.rows, training_rows(stored.rows))
            training = ENCODINGS[job["dtype"]].decode(stored_rows[chosen], job["embedding_dim"])
            write_approximate(kind, new, stored.rows, training, _decoded(stored_rows, job))
    files = {path.name: path.stat().st_size for path in new.iterdir()}
    return IndexFacts(
        binding(stored), kind, stored.rows, job["embedding_dim"], job["dtype"], shown, sources.problem, files
    )


def _check_sizes(stored: StoredEmbeddings) -> None:
    for record in stored.records:
        for name, size in record.files.items():
            path = stored.folder / ROWS_NAME / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                problem = "is missing" if found is None else f"has {found} bytes, expected {size}"
                raise ConfigurationError(f"{path} {problem}; restore it, or embed again")


def open_rows(folder: Path, dtype: str, rows: int, dim: int) -> NDArray[Any]:
    """The rows of an index as they are stored, on the disk."""
    encoding = ENCODINGS[dtype]
    return mapped(folder / ROWS_FILE, np.dtype(encoding.dtype), (rows, encoding.width(dim)))


def block_rows(dim: int) -> int:
    """Rows that are scored at once."""
    return max(1, BLOCK_BYTES // (4 * dim))


def _decoded(rows: NDArray[Any], job: dict[str, Any]) -> Iterator[NDArray[np.float32]]:
    step = block_rows(job["embedding_dim"])
    for start in range(0, len(rows), step):
        yield ENCODINGS[job["dtype"]].decode(rows[start : start + step], job["embedding_dim"])


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` numbers below `count`, at even distances."""
    return np.linspace(0, count - 1, wanted).astype(np.int64)
