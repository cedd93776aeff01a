"""Images in folders, files, patterns and archives: which are taken, in which order, under which ids."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from align_runtime.errors import ConfigurationError, DeviceError, InputError
from align_serving.embed.inputs import InputOptions, open_inputs
from align_serving.embed.items import all_items
from support.sample_folders import image, images, write_files, write_tar, write_zip

FILES = {"b.png": image(1), "a/2.png": image(2), "a/10.png": image(3), "notes.txt": b"x", ".hidden/c.png": image(4)}


def ids(*names: Any, **options: Any) -> list[str]:
    return [item.id for item in all_items(open_inputs([str(name) for name in names], InputOptions(**options)))]


def test_a_folder_is_walked_in_order_with_paths_as_the_user_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_files(tmp_path / "photos", FILES).parent)
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "photos")
    assert ids("photos") == ["photos/b.png", "photos/a/10.png", "photos/a/2.png"]
    assert ids("photos/b.png", "photos/a") == ["photos/b.png", "photos/a/10.png", "photos/a/2.png"]
    (tmp_path / "photos" / "link").unlink()  # a pattern follows links
    assert ids("photos/**/*.png") == ["photos/a/10.png", "photos/a/2.png", "photos/b.png"]
    assert ids(tmp_path / "photos/[b]*.png") == [f"{tmp_path}/photos/b.png"]
    (tmp_path / "[b].png").write_bytes(image(1))
    assert ids("[b].png") == ["[b].png"]  # a file with that name is not a pattern


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_an_archive_is_read_in_its_order(write: Any, tmp_path: Path) -> None:
    suffix = {write_tar: ".tar", write_zip: ".zip"}[write]
    files = {"z.png": image(1), "../../x.png": image(2), "a.txt": b"x", "a.png": image(3)}
    path = write(tmp_path / f"a{suffix}", files)
    assert ids(path) == ["z.png", "../../x.png", "a.png"]
    assert ids(path, qualified=True)[0] == f"{path}/z.png"
    sources = open_inputs([str(path)], InputOptions())
    assert [item.load() for item in all_items(sources)] == [files[name] for name in ("z.png", "../../x.png", "a.png")]


def test_an_archive_that_ends_early_is_an_item_with_the_reason(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", images(3))
    path.write_bytes(path.read_bytes()[:1800])
    other = write_tar(tmp_path / "b.tar", {"other.png": image(9)})
    found = list(all_items(open_inputs([str(path), str(other)], InputOptions())))
    assert [item.id for item in found] == ["0/000.png", "1/001.png", str(path), "other.png"]
    with pytest.raises(InputError, match=r"cannot read the archive .*a\.tar: it ends"):
        found[2].load()


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_an_archive_that_ends_in_a_member_is_two_items_with_the_reason(name: str, tmp_path: Path) -> None:
    whole = write_tar(tmp_path / name, {"a.png": image(1), "b.png": image(2, side=300)}).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    reasons, contents = {}, []
    for item in all_items(open_inputs([str(tmp_path / name)], InputOptions())):
        try:
            contents.append(item.load())
        except InputError as error:
            reasons[item.id] = error.message
    assert contents == [image(1)]
    assert list(reasons) == ["b.png", str(tmp_path / name)]
    assert reasons["b.png"].startswith("it cannot be read from the archive: ")


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_storage_that_fails_in_a_member_ends_the_job(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / {write_tar: "a.tar", write_zip: "a.zip"}[write], images(3))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(DeviceError, match=r"cannot be read further: Input/output error"):  # noqa: PT012
        for item in all_items(open_inputs([str(path)], InputOptions())):
            monkeypatch.setattr("align_runtime.archives.opened._Counted.read", fail)
            monkeypatch.setattr("zipfile.ZipExtFile.read", fail)
            item.load()


def test_storage_that_fails_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read now may be read tomorrow: it is not an item that is done."""
    path = write_tar(tmp_path / "a.tar", images(3))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("align_runtime.archives.opened._Counted.read", fail)
    with pytest.raises(DeviceError, match=r"a\.tar cannot be read further: Input/output error"):
        ids(path)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["gone"], {}, "gone does not exist"),
        (["*.gone"], {}, r"no file matches \*\.gone"),
        (["a.exe"], {}, r"a\.exe is of no type that is read"),
        (["pipe.txt"], {}, "is not a file or folder"),
        (["photos", "a.txt"], {}, r"photos holds images and a\.txt texts"),
        (["photos"], {"kind": "texts"}, r"photos holds images \(folder\), and --texts was given"),
    ],
)
def test_what_is_refused(
    names: list[str], options: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"a.txt": b"a.png", "photos/a.png": image(1), "a.exe": b"x"})
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ConfigurationError, match=message):
        ids(*names, **options)
    assert ids("photos", "a.txt", kind="images") == ["photos/a.png", "a.png"]


def test_names_that_are_no_unicode_are_escaped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(image(1))
    assert ids(tmp_path) == [f"{tmp_path}/caf\\xe9.png"]
