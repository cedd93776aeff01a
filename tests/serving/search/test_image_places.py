"""Images in archives and Parquet files: read again alone, within bounds, and not once the file has changed."""

from __future__ import annotations

import gzip
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align_runtime.errors import InputError
from align_runtime.progress import Progress
from align_serving.embed import command as embed_command
from align_serving.embed import parquet_rows
from align_serving.embed.inputs import InputOptions, open_inputs
from align_serving.embed.items import all_items, file_identity
from align_serving.embed.reading import open_embeddings
from align_serving.search.image_places import ImagePlace
from align_serving.search.index import open_index
from align_serving.search.sources import Sources
from serving.search.conftest import Search
from support import hostile_archives
from support.sample_folders import image, images, write_tar, write_zip

FILES = images(7) | {f"{'long' * 40}.png": image(8), "schön.png": image(9)}
FILES |= {"notes.txt": b"x", "../../x.png": image(10)}  # a text between two images
SHOWN = [content for name, content in FILES.items() if name.endswith(".png")]
LIMIT = 1 << 20


def stored_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())  # as of an archive that extracts itself
    return path


def binary(path: Path, files: dict[str, bytes]) -> Path:
    values = [None, *(content for name, content in files.items() if name.endswith(".png"))]
    pq.write_table(pa.table({"x": range(len(values)), "image": values}), path, row_group_size=4)
    return path


def structures(path: Path, files: dict[str, bytes]) -> Path:
    values = [{"bytes": content, "path": name} for name, content in files.items() if name.endswith(".png")]
    pq.write_table(pa.table({"image": values}), path, row_group_size=64)
    return path


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, bytes]], Path]]] = {
    "tar": ("a.tar", write_tar),
    "deflated zip": ("a.zip", write_zip),
    "stored zip": ("a.zip", stored_zip),
    "binary values": ("a.parquet", binary),
    "structures": ("a.parquet", structures),
}


def places(path: Path) -> list[ImagePlace]:
    """Of all items of `path` that have a content, stored and read back."""
    found = []
    for item in all_items(open_inputs([str(path)], InputOptions())):
        try:
            item.load()
        except InputError:
            continue
        place = ImagePlace(str(path), item.place(), file_identity(path).decode())
        found.append(ImagePlace.from_bytes(place.to_bytes()))
        assert found[-1] == place
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_every_image_is_read_alone_from_where_it_lies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_ROWS", {"texts": 4096, "bytes": 3})
    file, write = WRITERS[name]
    found = places(write(tmp_path / file, FILES))
    assert [place.read(LIMIT) for place in reversed(found)] == SHOWN[::-1]
    for place, content in zip(found, SHOWN, strict=True):
        assert place.read(len(content) + 5) == content  # 5: what deflate adds to noise
        with pytest.raises(InputError, match=f"it has {len(content)} bytes|expected at most {len(content) - 1}"):
            place.read(len(content) - 1)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_was_changed_is_not_read(name: str, tmp_path: Path) -> None:
    file, write = WRITERS[name]
    path = write(tmp_path / file, FILES)
    (place, *_) = places(path)
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="was changed"):
        place.read(LIMIT)
    write(path, FILES)
    os.utime(path, ns=(1, before.st_mtime_ns + 1))
    with pytest.raises(InputError, match="was changed"):
        place.read(LIMIT)
    other = path.rename(path.with_name("b"))
    with pytest.raises(InputError, match="no longer there"):
        place.read(LIMIT)
    path.symlink_to(other)
    with pytest.raises(InputError, match="links are not followed"):
        place.read(LIMIT)


def forged(path: Path, old: bytes, new: bytes) -> bytes:
    """The content of `path` with `new` for `old`, which it holds once."""
    content = path.read_bytes()
    assert content.count(old) == 1
    return content.replace(old, new)


def test_members_that_cannot_be_read_alone_say_why(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", FILES)
    (tmp_path / "b.tar").write_bytes(gzip.compress(hostile_archives.member(b"a.png", image(1))))
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", image(1))
    write_zip(tmp_path / "d.zip", {"a.png": image(1)})
    (tmp_path / "d.zip").write_bytes(forged(tmp_path / "d.zip", b"PK\x03\x04", b"PK\x03\x05"))
    (tmp_path / "e.zip").write_bytes(hostile_archives.empty_directory(1))
    reasons = {"a.tar.gz": "compressed as a whole", "b.tar": "compressed as a whole", "c.zip": "stored or deflated"}
    for name, reason in (reasons | {"d.zip": "its header is not", "e.zip": "its header is not"}).items():
        items = all_items(open_inputs([str(tmp_path / name)], InputOptions()))  # closes the file when it is collected
        with pytest.raises(InputError, match=reason):
            next(items).place()


def test_a_row_group_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place, *_) = places(structures(tmp_path / "a.parquet", FILES))
    monkeypatch.setattr(parquet_rows, "MAX_GROUP_BYTES", 1000)
    with pytest.raises(InputError, match="its row group has .* at most 1000"):
        place.read(LIMIT)


def test_inputs_of_every_kind_give_thumbnails(
    tmp_path: Path, tiny_bundle: Path, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated archive ends with an error that counts as an item; what follows it keeps its places."""
    few = images(3)
    cut = write_tar(tmp_path / "cut.tar", few)
    cut.write_bytes(cut.read_bytes()[:1800])
    inputs = [cut, write_zip(tmp_path / "b.zip", few), structures(tmp_path / "c.parquet", few)]
    (tmp_path / "linked.tar").symlink_to(write_tar(tmp_path / "d.tar", few))
    inputs += [tmp_path / "linked.tar", write_tar(tmp_path / "e.tgz", few)]
    arguments = [tiny_bundle, *inputs, "-o", tmp_path / "e", "--threads", 1, "--quiet", "--shard-items", 4]
    assert embed_command.main([str(argument) for argument in arguments]) == 0
    capsys.readouterr()
    page = tmp_path / "contact.html"
    assert search("find", tmp_path / "e", "--text", "a", "--top", 20, "--html", page, "--json") == 0
    answer = json.loads(capsys.readouterr().out)["queries"][0]["results"]
    paths = sorted(Path(entry["path"]).name for entry in answer if entry["path"])
    assert paths == ["b.zip"] * 3 + ["c.parquet"] * 3 + ["cut.tar"] + ["d.tar"] * 3
    written = page.read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/jpeg;base64,', written)) == 10
    assert written.count("compressed as a whole") == 3
    index = open_index(open_embeddings(tmp_path / "e"), "exact", Progress(quiet=True))
    shown = [index.image(row) for row in range(len(index))]
    assert [place.read(LIMIT) for place in shown if place] == [*list(few.values())[:1], *list(few.values()) * 3]


def test_what_is_unknown_has_a_reason(tmp_path: Path, tiny_bundle: Path) -> None:
    path = write_tar(tmp_path / "a.tar", images(3))
    arguments = [tiny_bundle, path, "-o", tmp_path / "e", "--threads", 1, "--quiet"]
    assert embed_command.main([str(argument) for argument in arguments]) == 0
    stored = open_embeddings(tmp_path / "e")
    (record,) = stored.records
    sources = Sources(stored)
    found = sources.of_shard(record.items, record.digest, ["0/000.png", "another.png", "2/002.png"])
    assert [bool(place) for place in found] == [True, False, True]
    assert sources.problem == "the inputs are not those that were embedded"
