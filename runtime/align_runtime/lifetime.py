"""Lifetime: a model is used in the process that loaded it, until it is closed or the interpreter ends.

A child that was forked has none of its parent's threads: what waits for one of them waits for ever, and so does the
destructor of an ONNX Runtime session, which joins its threads. So a child gets an error, and what its parent loaded is
never freed in it. `os.getpid` tells the processes apart, also where a C program forks an embedded interpreter.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from align_runtime.errors import AlignError, ConfigurationError

T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> None: ...


_unfreeable: WeakSet[Any] = WeakSet()
_open: WeakSet[Closable] = WeakSet()
_ending = False


def is_forked(process: int) -> bool:
    """Whether this process is not `process`, the one that loaded the model."""
    return os.getpid() != process


def check_process(process: int) -> None:
    """Raises ConfigurationError in a child of `process`, the one that loaded the model."""
    if is_forked(process):
        raise ConfigurationError(
            f"the model was loaded in process {process}, before the fork that made process {os.getpid()}, and its "
            "threads did not survive; load the bundle after the fork, or start processes with 'spawn'"
        )


def closed() -> ConfigurationError:
    """The error of a call after `close`, with the reason."""
    if _ending:
        return ConfigurationError("the interpreter is shutting down and has closed the model; call it before that")
    return ConfigurationError("the model is closed; load the bundle again")


def keep_in_forks(value: T) -> T:
    """`value`, which a forked child never frees; a child's memory is shared with its parent as long as it is read."""
    _unfreeable.add(value)
    return value


def close_at_exit(value: Closable) -> None:
    """Closes `value` when the interpreter ends, unless it is gone by then.

    That is after all threads but daemons: a daemon must not be inside a library when the interpreter is gone.
    """
    _open.add(value)


class Lifetime:
    """Lets calls in until it is closed; what they use is freed when the last of them has left."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._inside: Counter[int] = Counter()  # calls by thread
        self._closed = False
        self._free: Callable[[], None] | None = None
        self._changed = threading.Condition()  # reentrant: the handler of a signal may close the model
        close_at_exit(self)

    @contextmanager
    def use(self) -> Iterator[None]:
        """A call is inside while this block runs.

        Raises:
            ConfigurationError: closed, or in a forked child.
        """
        check_process(self._process)
        thread = threading.get_ident()
        with self._changed:
            self._inside[thread] += 1
        try:
            if self._closed:
                raise closed()
            yield
        finally:
            if not is_forked(self._process):
                with self._changed:
                    self._inside[thread] -= 1
                    self._inside += Counter()  # drops the zeros
                    self._free_if_unused()
                    self._changed.notify_all()

    def close(self, free: Callable[[], None] | None = None) -> None:
        """Lets nobody in, waits for those inside, then calls `free`, once however many threads close.

        A thread that is inside itself (in the handler of a signal) does not wait: `free` is called when it leaves. In a
        forked child nothing is freed.
        """
        if is_forked(self._process):
            return
        with self._changed:
            if not self._closed:
                self._closed, self._free = True, free
            if threading.get_ident() not in self._inside:
                self._changed.wait_for(lambda: not self._inside)
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if not self._inside and self._free is not None:
            free, self._free = self._free, None
            free()


def _after_fork() -> None:
    """In a forked child: keeps what must not be freed here, and lets the process end without C++ destructors.

    Those of ONNX Runtime wait for its threads. Handlers of the C library run in reverse order, so these come first:
    buffers are written, then the process ends with its status. Python's own `atexit` functions have run by then.
    """
    for value in list(_unfreeable):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    if "onnxruntime" in sys.modules:
        with suppress(AttributeError):  # a C library that is not glibc
            libc = ctypes.CDLL(None)
            libc.on_exit(libc._exit, None)
            libc.__cxa_atexit(libc.fflush, None, None)


def _close_all() -> None:
    global _ending
    _ending = True
    for value in list(_open):
        with suppress(AlignError):  # of a GPU; there is nobody left to tell
            value.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
