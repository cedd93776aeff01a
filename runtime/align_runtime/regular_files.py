"""Reading files that a stranger may have made: regular files only, and never more bytes than expected.

A FIFO blocks whoever opens it until somebody writes, a device has no end, and a file may grow while it is read. So a
file is opened without blocking, its kind is taken from the descriptor that is read, and the size is checked on what
arrives.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from align_runtime.errors import AlignError

_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def open_regular(path: Path, error: type[AlignError], name: str | None = None) -> Iterator[BufferedReader]:
    """The regular file `path`, open for reading in binary mode; a link is followed.

    Args:
        name: what messages call it; None for its path.

    Raises:
        `error`: it does not exist, cannot be opened or read, or is a folder, FIFO, socket or device. Its cause is the
            error of the system, where there was one.
    """
    shown = str(path) if name is None else name
    try:
        with open(_descriptor(path, error, shown), "rb") as file:
            yield file
    except OSError as reason:
        raise error(f"{shown} cannot be read: {reason.strerror or reason}") from reason


def _descriptor(path: Path, error: type[AlignError], shown: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    except FileNotFoundError:
        kind = "is a link to a file that does not exist; fetch it again" if path.is_symlink() else "does not exist"
        raise error(f"{shown} {kind}") from None
    except ValueError as reason:  # a NUL character in the path
        raise error(f"{shown} cannot be read: {reason}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{shown} is not a regular file; expected one, or a link to one")
    return descriptor


def read_regular(path: Path, max_bytes: int, error: type[AlignError], name: str | None = None) -> bytes:
    """The content of the regular file `path`, which messages call `name` if it is not None.

    Raises:
        `error`: as in `open_regular`, or it has more than `max_bytes` bytes.
    """
    with open_regular(path, error, name) as file:
        size = os.fstat(file.fileno()).st_size
        data = (file.read(size + 1) or b"") if size <= max_bytes else b""  # None: it would block, as /proc/kmsg does
        while size < len(data) <= max_bytes and (more := file.read(max_bytes + 1 - len(data))):  # it claims too little
            data += more
    if max(size, len(data)) > max_bytes:
        shown = str(path) if name is None else name
        raise error(f"{shown} has {max(size, len(data))} bytes; expected at most {max_bytes}")
    return data
