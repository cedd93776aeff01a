"""The index: as exact as the rows, in blocks, approximate with its recall, and built again when the rows are others."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from align_runtime.errors import ConfigurationError
from align_runtime.folder_exchange import companion, new_folder
from align_runtime.progress import Progress
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.ledger import open_ledger
from align_serving.embed.output import Shard, open_output
from align_serving.embed.reading import StoredEmbeddings, open_embeddings
from align_serving.search import building
from align_serving.search.index import Index, open_index
from serving.search.conftest import CAPTIONS, Search

QUIET = Progress(quiet=True)
DIM = 24


def random_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def written(folder: Path, rows: np.ndarray, dtype: str = "float32", shards: int = 3) -> StoredEmbeddings:
    """Embeddings of texts that do not exist any more."""
    job = {
        "bundle": "0" * 64, "embedding_dim": DIM, "precision": "fp32", "kind": "texts", "dtype": dtype, "format": "npy",
        "column": None, "id_column": None, "qualified_ids": False, "inputs": [{"rows": str(folder / "gone.txt")}],
    }  # fmt: skip
    with open_output(folder, job, {}) as output:
        for part in np.array_split(np.arange(len(rows)), shards):
            output.commit(Shard(len(part), [f"row-{number}" for number in part], rows[part], [], "digest"))
    return open_embeddings(folder)


@pytest.mark.parametrize("dtype", list(ENCODINGS))
def test_exact_search_is_a_product_with_all_rows_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(building, "BLOCK_BYTES", 4 * DIM * 7)  # 7 rows
    rows, queries = random_rows(100), random_rows(5, seed=1)
    index = open_index(written(tmp_path / "e", rows, dtype), "exact", QUIET)
    encoding = ENCODINGS[dtype]
    products = queries @ encoding.decode(encoding.encode(rows), DIM).T
    for hits, scores in zip(index.search(queries, 12), products, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:12], atol=1e-6)
        np.testing.assert_allclose([hit.score for hit in hits], scores[[hit.row for hit in hits]], atol=1e-6)
        assert [hit.id for hit in hits] == [f"row-{hit.row}" for hit in hits]
    assert len(index.search(queries, 1000)[0]) == 100


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8"])
def test_an_approximate_index_scores_as_exact_search_and_measures_its_recall(tmp_path: Path, kind: str) -> None:
    stored, queries = written(tmp_path / "e", random_rows(3000), "float16"), random_rows(20, seed=1)
    index, exact = open_index(stored, kind, QUIET), open_index(stored, "exact", QUIET)
    wanted = {(q, hit.row): hit.score for q, hits in enumerate(exact.search(queries, 10)) for hit in hits}
    found = {(q, hit.row): hit.score for q, hits in enumerate(index.search(queries, 10)) for hit in hits}
    both = wanted.keys() & found.keys()
    assert len(both) / len(wanted) > 0.6
    assert all(found[key] == pytest.approx(wanted[key], abs=1e-5) for key in both)
    assert index.facts.recall is not None
    assert 0.6 < index.facts.recall <= 1
    assert exact.facts.recall is None


def test_an_index_is_kept_and_built_again_for_other_rows(tmp_path: Path) -> None:
    stored = written(tmp_path / "e", random_rows(30))
    made = (open_index(stored, "exact", QUIET), (tmp_path / "e/index-exact/rows.bin").stat().st_ino)
    again = open_index(open_embeddings(tmp_path / "e"), "exact", QUIET)
    assert (tmp_path / "e/index-exact/rows.bin").stat().st_ino == made[1]
    assert again.facts == made[0].facts
    with open_output(tmp_path / "e", stored.job, {}) as output:
        output.commit(Shard(2, ["new-0", "new-1"], random_rows(2, seed=9), [], "digest"))
    later = open_index(open_embeddings(tmp_path / "e"), "exact", QUIET)
    assert len(later) == 32
    assert later.search(random_rows(2, seed=9), 1)[1][0].id == "new-1"
    assert [path.name for path in (tmp_path / "e").glob(".*")] == []


def test_an_index_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    stored = written(tmp_path / "e", random_rows(30))
    open_index(stored, "exact", QUIET)
    (tmp_path / "e/index-exact/rows.bin").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="not whole"):
        open_index(stored, "exact", QUIET)


def test_a_shard_of_another_size_is_an_error(tmp_path: Path) -> None:
    stored = written(tmp_path / "e", random_rows(30))
    (tmp_path / "e/embeddings/part-000001.npy").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"part-000001\.npy has 5 bytes"):
        open_index(stored, "exact", QUIET)
    assert not (tmp_path / "e/index-exact").exists()


def test_sources_that_are_gone_are_said(tmp_path: Path) -> None:
    index: Index = open_index(written(tmp_path / "e", random_rows(30)), "exact", QUIET)
    assert index.facts.shown == 0
    assert "gone.txt" in str(index.facts.problem)
    assert index.search(random_rows(1), 1)[0][0].source is None


def test_changed_texts_are_not_shown(
    search: Search, tmp_path: Path, embedded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = embedded / "captions.txt"
    before = captions.read_text()
    try:
        captions.write_text(before.replace("star", "moon"))
        assert search("index", embedded / "texts", "--json") == 0
    finally:
        captions.write_text(before)
    (facts,) = json.loads(capsys.readouterr().out)["indexes"]
    assert facts["shown"] == 1  # the captions are in shards of three
    assert search("index", embedded / "texts", "--json") == 0
    assert json.loads(capsys.readouterr().out)["indexes"][0]["shown"] == 4


def test_an_image_behind_a_link_out_of_its_folder_is_not_shown(
    tmp_path: Path, embedded: Path, tiny_bundle: Path, search: Search
) -> None:
    from align_serving.embed import command

    photos = tmp_path / "photos"
    photos.mkdir()
    outside = next((embedded / "photos").glob("*.png"))
    (photos / "a.png").write_bytes(outside.read_bytes())
    (photos / "b.png").symlink_to(photos / "a.png")
    (photos / "c.png").symlink_to(outside)
    output = tmp_path / "e"
    assert command.main([str(tiny_bundle), str(photos), "-o", str(output), "--quiet", "--threads", "1"]) == 0
    index = open_index(open_embeddings(output), "exact", QUIET)
    assert [index.source(row) for row in range(3)] == [str(photos / "a.png"), str(photos / "a.png"), None]
    assert "c.png is a link out of its folder" in str(index.facts.problem)


def test_leftovers_of_killed_builds_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    stored = written(tmp_path / "e", random_rows(30))
    killed = companion(tmp_path / "e/index-exact", "partial")
    killed.mkdir()
    (killed / "rows.bin").write_bytes(b"part")
    with new_folder(tmp_path / "e/index-exact") as living:
        open_index(stored, "exact", QUIET)
        assert list((tmp_path / "e").glob(".*")) == [living]
    (tmp_path / "e/index-exact").rename(companion(tmp_path / "e/index-exact", "complete"))
    inode = next((tmp_path / "e").glob(".*/rows.bin")).stat().st_ino
    open_index(stored, "exact", QUIET)  # a build that was killed while it took its place is finished
    assert (tmp_path / "e/index-exact/rows.bin").stat().st_ino == inode


def test_embeddings_that_cannot_be_written_are_searched_with_an_index_elsewhere(
    search: Search, folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = os.mkdir

    def refused(path: Path, *options: object) -> None:
        if Path(path).is_relative_to(folders / "images") or Path(path).is_relative_to(folders / "texts"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        make(path, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", refused)
    before = sorted(folders.rglob("*"))
    assert search("find", folders / "images", "--text", "a") == 2
    assert "(Read-only file system); make room or the folder writable, or name another one with --index-folder" in (
        capsys.readouterr().err
    )
    kept, both = folders / "new/kept", (folders / "images", folders / "texts")
    for _ in range(2):
        assert search("find", *both, "--text", CAPTIONS[0], "--top", 1, "--json", "--index-folder", kept) == 0
        image, text = json.loads(capsys.readouterr().out)["queries"][0]["results"]
        assert (Path(image["id"]).name, text["text"]) == ("green-heart.png", CAPTIONS[0])
    names = sorted(path.name for path in kept.iterdir())
    assert [re.sub("-[0-9a-f]{12}-", "-…-", name) for name in names] == ["images-…-exact", "texts-…-exact"]
    assert sorted(path for path in folders.rglob("*") if not path.is_relative_to(folders / "new")) == before
    for folder in both:
        search("index", folder, "--index-folder", kept)
    assert sorted(path.name for path in kept.iterdir()) == names


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    with open_ledger(_made(tmp_path / "e")) as ledger:
        ledger.begin({"bundle": "0", "kind": "texts", "dtype": "float32", "embedding_dim": DIM, "format": "npy"})
    with pytest.raises(ConfigurationError, match="no rows"):
        open_index(open_embeddings(tmp_path / "e"), "exact", QUIET)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
