"""The standard streams of a command, whatever the shell made of them: closed, broken or full.

After ``>&-`` Python has no `sys.stdout`, and the next file that is opened gets its descriptor, 1: whatever a library or
a child process prints would go into that file.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from align_runtime.foreign_text import printable


def ensure_streams() -> None:
    """Gives the process the standard streams that it lacks; they lead nowhere."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free is `descriptor`
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def show(text: str) -> None:
    """Prints a result on stdout. A reader that has gone, such as ``head``, is no error: the result stands.

    Raises:
        OSError: it cannot be written for another reason, such as a full disk.
    """
    if not sys.stdout.closed:
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except (BrokenPipeError, ConnectionResetError):
            drop_unwritable(sys.stdout)


def complain(line: str) -> None:
    """A line on stderr, where it can be written, with the control characters of foreign text in it escaped."""
    with suppress(OSError, ValueError):  # ValueError: it was closed
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def drop_unwritable(stream: TextIO) -> None:
    """Gives up what `stream` cannot take; the interpreter would try again at its end, complain, and exit with 120."""
    if stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
