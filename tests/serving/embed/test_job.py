"""align-embed from the command line to the rows: they are the runtime's, and each bad item is told once."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import align_runtime
from align_serving.embed import arrow, command
from align_serving.embed.ledger import read_ledger
from align_serving.embed.output import Shard, open_output
from align_serving.embed.reading import open_embeddings
from support.sample_folders import image, images, write_files, write_tar

Embed = Callable[..., int]
TEXTS = [f"a photo of {count} red circles" for count in range(30)]


def errors_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]


def rows_of(output: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    parts = list(open_embeddings(output).decoded())
    return [name for ids, _ in parts for name in ids], np.concatenate([rows for _, rows in parts])


def test_texts_are_embedded_as_by_the_runtime(embed: Embed, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--shard-items", 12) == 0
    names, rows = rows_of(tmp_path / "out")
    assert names == [f"{tmp_path}/a.txt:{number}" for number in range(1, 31)]
    with align_runtime.load(tiny_bundle, towers=("text",), threads=1) as model:
        expected = [model.embed_texts(TEXTS[start : start + 12]) for start in (0, 12, 24)]
    np.testing.assert_array_equal(rows, np.concatenate(expected))
    assert sorted(path.name for path in (tmp_path / "out" / "embeddings").iterdir()) == [
        "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
    ]  # fmt: skip
    assert errors_of(tmp_path / "out") == []


@pytest.mark.parametrize("archived", [False, True])
def test_images_are_embedded_as_by_the_runtime(embed: Embed, tiny_bundle: Path, tmp_path: Path, archived: bool) -> None:
    files = images(10)
    place = write_tar(tmp_path / "a.tar", files) if archived else write_files(tmp_path / "a", files)
    assert embed([place], tmp_path / "out", "--shard-items", 4, "--batch-size", 2) == 0
    names, rows = rows_of(tmp_path / "out")
    order = list(files) if archived else sorted(files)
    assert names == [name if archived else f"{place}/{name}" for name in order]
    with align_runtime.load(tiny_bundle, towers=("vision",), threads=1) as model:
        expected = np.concatenate(
            [
                model.embed_images([files[name] for name in order[start : start + 4]], batch_size=2)
                for start in (0, 4, 8)
            ]
        )
    np.testing.assert_array_equal(rows, expected)


def test_the_schema_tells_what_the_rows_are(embed: Embed, tiny_bundle: Path, tmp_path: Path) -> None:
    place = write_files(tmp_path / "a", images(2))
    for dtype, stored in (("float32", "float"), ("float16", "halffloat"), ("int8", "int8"), ("binary", "uint8")):
        assert embed([place], tmp_path / dtype, "--dtype", dtype) == 0
        table = pq.read_table(tmp_path / dtype / "embeddings")
        width = 12 if dtype == "binary" else 96
        assert [str(field.type) for field in table.schema] == ["string", f"fixed_size_list<element: {stored}>[{width}]"]
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        assert json.loads(metadata.pop("align.preprocessing"))["size"] == {"height": 76, "width": 76}
        assert len(metadata.pop("align.bundle_sha256")) == 64
        assert metadata == {
            "align.model": "align-tiny", "align.revision": "", "align.embedding_dim": "96", "align.kind": "images",
            "align.dtype": dtype, "align.precision": "fp32", "align.device": "cpu", "align.alpha": "drop",
        }  # fmt: skip


def test_npy_holds_the_same_rows(embed: Embed, tmp_path: Path) -> None:
    place = write_files(tmp_path / "a", images(5))
    for form in ("npy", "parquet"):
        assert embed([place], tmp_path / form, "--format", form, "--shard-items", 3, "--dtype", "float16") == 0
    for (ids, rows), (other_ids, other_rows) in zip(
        open_embeddings(tmp_path / "npy").stored(), open_embeddings(tmp_path / "parquet").stored(), strict=True
    ):
        assert ids == other_ids
        np.testing.assert_array_equal(rows, other_rows)
    assert np.load(tmp_path / "npy" / "embeddings" / "part-000001.npy").shape == (2, 96)


def hostile_tar(path: Path) -> Path:
    """A truncated image, a CMYK image, an empty file, a text file, a name that leaves, a link, a name twice, a bomb."""

    def encoded(drawn: Image.Image, form: str) -> bytes:
        stream = io.BytesIO()
        drawn.save(stream, form)
        return stream.getvalue()

    files = [
        ("good.png", image(1)),
        ("truncated.jpg", encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900]),
        ("cmyk.jpg", encoded(Image.new("CMYK", (20, 20), (10, 200, 30, 40)), "JPEG")),
        ("empty.png", b""),
        ("notes.txt", b"text"),
        ("text.png", b"text"),
        ("../../x", b"x"),
        ("../../x.png", image(2)),
        ("twice.png", image(3)),
        ("twice.png", image(4)),
        ("bomb.png", encoded(Image.new("1", (10_000, 10_000)), "PNG")),
        ("last.png", image(5)),
    ]
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_a_hostile_archive_gives_an_error_for_each_bad_image_and_all_other_rows(
    embed: Embed, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hostile_tar(tmp_path / "a.tar")
    assert embed([path], tmp_path / "out", "--shard-items", 5) == 0
    names, rows = rows_of(tmp_path / "out")
    assert names == ["good.png", "cmyk.jpg", "../../x.png", "twice.png", "twice.png", "last.png"]
    with align_runtime.load(tiny_bundle, towers=("vision",), threads=1) as model:
        np.testing.assert_array_equal(rows[[0, 3, 4, 5]], model.embed_images([image(seed) for seed in (1, 3, 4, 5)]))
    errors = errors_of(tmp_path / "out")
    assert [(error["item"], error["id"]) for error in errors] == [
        (1, "truncated.jpg"), (3, "empty.png"), (4, "text.png"), (8, "bomb.png"),
    ]  # fmt: skip
    for error, word in zip(errors, ["truncated", "is empty", "not an image", "10000 × 10000 pixels"], strict=True):
        assert word in error["reason"]
    assert "4 items could not be embedded" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.parent.iterdir() if entry.name.startswith("x")] == []


def test_too_many_errors_end_the_job_which_goes_on_with_a_higher_limit(
    embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = hostile_tar(tmp_path / "a.tar"), tmp_path / "out"
    assert embed([path], out, "--shard-items", 2, "--max-errors", 2) == 2
    told = capsys.readouterr().err
    assert "more than 2 items cannot be embedded, the last one is 'text.png': " in told
    assert "align-embed: 4 items are finished; run the same command to resume" in told
    assert [error["id"] for error in errors_of(out)] == ["truncated.jpg", "empty.png", "text.png"]
    assert embed([path], out, "--shard-items", 2, "--max-errors", 4) == 0
    assert [error["id"] for error in errors_of(out)] == ["truncated.jpg", "empty.png", "text.png", "bomb.png"]
    assert len(rows_of(out)[0]) == 6


def test_json_and_a_second_call(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    for now in (30, 0):
        assert embed([tmp_path / "a.txt"], tmp_path / "out", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told.pop("seconds") >= 0
        assert told == {
            "output": str(tmp_path / "out"), "items": 30, "rows": 30, "errors": 0, "embedded_now": now,
        }  # fmt: skip
    assert len(read_ledger(tmp_path / "out").runs) == 1


def test_no_items_is_an_error(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    assert embed([tmp_path / "a"], tmp_path / "out") == 2
    assert "the inputs hold no images" in capsys.readouterr().err


def test_items_of_which_none_can_be_embedded_end_with_2_and_an_empty_shard(embed: Embed, tmp_path: Path) -> None:
    place = write_files(tmp_path / "a", {"a.png": b"x", "b.png": b""})
    assert embed([place], tmp_path / "out", "--dtype", "int8") == 2
    assert pq.read_table(tmp_path / "out" / "embeddings").schema.field("embedding").type.list_size == 96
    assert len(errors_of(tmp_path / "out")) == 2
    assert embed([place], tmp_path / "out", "--dtype", "int8") == 2


def test_a_second_signal_leaves_no_half_of_a_shard(embed: Embed, tmp_path: Path) -> None:
    """An output that was closed takes nothing any more."""
    (tmp_path / "a.txt").write_text("text")
    assert embed([tmp_path / "a.txt"], tmp_path / "out") == 0
    job = read_ledger(tmp_path / "out").job or {}
    with open_output(tmp_path / "out", job, {}) as output:
        pass
    output.commit(Shard(1, ["id"], np.ones((1, 96), np.float32), [], ""))
    assert len(read_ledger(tmp_path / "out").shards) == 1


def test_an_output_that_holds_something_else_is_refused(
    embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    for out, message in ((tmp_path, "holds something else than embeddings"), (tmp_path / "a.txt", "is not a folder")):
        assert embed([tmp_path / "a.txt"], out) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_pyarrow_is_needed_for_parquet_alone(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert embed([tmp_path / "a.txt"], tmp_path / "out") == 2
    assert arrow.INSTALL in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--format", "npy") == 0


def test_a_shard_is_embedded_while_the_one_before_is_written(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard is held back until the second one is read; no third is begun before the first is written."""
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    read_on, read = threading.Event(), []
    commit, contents = command.Output.commit, __import__("align_serving.embed.job").embed.job._ShardWork.contents

    def held(self: Any, shard: Any) -> None:
        assert read_on.wait(20)
        read.append(len(read))
        commit(self, shard)

    def noted(self: Any, items: Any) -> Any:
        if self._start == 20:
            assert read == [0]
        for content in contents(self, items):
            if self._start == 10:
                read_on.set()
            yield content

    monkeypatch.setattr("align_serving.embed.output.Output.commit", held)
    monkeypatch.setattr("align_serving.embed.job._ShardWork.contents", noted)
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--shard-items", 10) == 0
    assert read == [0, 1, 2]
