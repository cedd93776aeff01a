"""Files of a stranger: regular ones of bounded size, and nothing that blocks or never ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from align_runtime import regular_files
from align_runtime.errors import BundleError
from align_runtime.regular_files import open_regular, read_regular


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 4, BundleError) == b"1234"
    assert read_regular(tmp_path / "link", 4, BundleError) == b"1234"


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=f"has {1 << 40} bytes; expected at most 4"):
        read_regular(tmp_path / "sparse", 4, BundleError)


def test_a_file_that_claims_no_size_is_read_to_the_limit_alone() -> None:
    with pytest.raises(BundleError, match="has 11 bytes; expected at most 10"):
        read_regular(Path("/proc/self/status"), 10, BundleError)  # its size is 0, its content is not


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device", "link to a fifo"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to("fifo")
    with pytest.raises(BundleError, match="not a regular file|cannot be read"):
        read_regular(path, 4, BundleError)


@pytest.mark.parametrize("name", ["missing", "a\0b", "x" * 300])
def test_what_cannot_be_opened_is_an_error_of_the_kind_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"does not exist|cannot be read"):
        read_regular(tmp_path / name, 4, BundleError)


def test_errors_of_the_block_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    with pytest.raises(ValueError, match="mine"), open_regular(tmp_path / "file", BundleError):
        raise ValueError("mine")


def test_a_file_that_has_nothing_yet_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as /proc/kmsg, which claims to be a regular file and would block."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr(regular_files, "_descriptor", lambda *_: reading)
    assert read_regular(path, 100, BundleError) == b""
    os.close(writing)
