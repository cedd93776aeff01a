"""Puts a finished folder in the place of an older one, so that a process that dies leaves one of the two whole.

While ``bundle`` is replaced, these lie beside it, each with the name of the host and a random part:

    .bundle.partial-…    the new content while it is written; after an exchange, the previous one
    .bundle.complete-…   the new content, whole: if the process dies now, the next start puts it in its place
    .bundle.previous-…   the previous content, on its way out

There are three ways. Each is taken where the one before it is not possible:

1. one atomic exchange, with Linux's ``renameat2``;
2. the previous folder is moved away, then the new one takes its place (file systems and sandboxes without exchange);
3. the previous folder is removed, then the new one takes its place (a folder of a lower layer of overlayfs, as in the
   image of a container, can be removed but not moved: EXDEV).
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from align_runtime.errors import BuildError, ConfigurationError

if sys.platform != "win32":
    import fcntl

PARTIAL, COMPLETE, PREVIOUS = "partial", "complete", "previous"
MAX_NAME = 100  # bytes of the folder's own name in those of its companions: file systems end at 255


def companions(folder: Path, kind: str, host: str = platform.node()) -> list[Path]:
    """The folders of `kind` beside `folder`, the latest first.

    Args:
        host: only those that this host has made; ``"*"`` for any.
    """
    pattern = f"{glob.escape(_prefix(folder, kind))}{host if host == '*' else glob.escape(_plain(host))}-*"
    found = []
    with suppress(OSError):  # a parent that cannot be read
        for path in folder.parent.glob(pattern):
            with suppress(OSError):  # another process has removed it
                found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]


def companion(folder: Path, kind: str) -> Path:
    """A new path of `kind` beside `folder`."""
    return folder.parent / f"{_prefix(folder, kind)}{_plain(platform.node())}-{secrets.token_hex(8)}"


def _prefix(folder: Path, kind: str) -> str:
    name = os.fsencode(folder.name)
    short = folder.name if len(name) <= MAX_NAME else hashlib.sha256(name).hexdigest()
    return f".{short}.{kind}-"


def _plain(host: str) -> str:
    return host.replace("/", "_")[:64]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder of the kind `PARTIAL` beside `folder`; what still has that name at the end is removed.

    It is locked while this process lives, so that no other process takes it for the rest of a killed one.
    """
    with ExitStack() as locks:
        path = companion(folder, PARTIAL)
        path.mkdir()
        while not (_lock(path, locks, wait=True) and path.exists()):  # just removed by another process, before the lock
            path = companion(folder, PARTIAL)
            path.mkdir()
        try:
            yield path
        finally:
            remove(path)


def _lock(path: Path, locks: ExitStack, wait: bool) -> bool:
    """Locks the folder `path` until `locks` is closed; False where it is gone, or where another process has the lock.

    Where folders cannot be locked, nobody can tell whether one is in use: True with `wait`, False without.
    """
    if sys.platform == "win32":
        return wait
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    locks.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return wait
    return True


def replace(new: Path, folder: Path, marker: str) -> None:
    """Puts `new`, a companion of `folder`, in the place of `folder`, which may be missing or empty.

    Args:
        marker: name of the file that makes a folder what it is; where files are removed one by one, it goes last.

    Raises:
        BuildError: it is not possible; the message says where the previous and the new content are.
    """
    if is_empty(folder):
        with suppress(OSError):
            new.rename(folder)  # POSIX: an empty folder is replaced in the same step
            return
    elif _exchange(new, folder):  # `new` is now the previous content
        remove(new)
        return
    complete, previous = companion(folder, COMPLETE), companion(folder, PREVIOUS)
    new.rename(complete)
    state = "it is as it was"
    try:
        if folder.exists():
            try:
                folder.rename(previous)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                state = "it is partly removed"
                _remove_content(folder, marker)
        complete.rename(folder)
    except BaseException as error:
        if previous.exists() and not folder.exists():
            with suppress(OSError):
                previous.rename(folder)
        if not isinstance(error, OSError):
            raise
        if previous.exists():
            state = f"its previous content is at {previous}"
        raise BuildError(
            f"{folder} cannot be replaced ({error.strerror}): {state}; the new content is whole at {complete}, move it "
            "to where you need it"
        ) from None
    remove(previous)


def is_empty(folder: Path) -> bool:
    """Whether `folder` is missing, or a folder without content."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _remove_content(folder: Path, marker: str) -> None:
    for path in folder.iterdir():
        if path.name != marker:
            remove(path)
    (folder / marker).unlink(missing_ok=True)
    folder.rmdir()


def finish_interrupted(folder: Path, marker: str, is_whole: Callable[[], bool]) -> None:
    """Finishes a replacement of `folder` whose process died, and removes what dead processes of this host left.

    The new content takes the place of what is missing, empty or no longer whole. A folder with content and without the
    file `marker` is not touched.

    Args:
        is_whole: whether the content of `folder` is.
    """
    with ExitStack() as locks:

        def abandoned(kind: str) -> list[Path]:
            return [path for path in companions(folder, kind) if _lock(path, locks, wait=False)]

        complete = abandoned(COMPLETE)
        if complete and (is_empty(folder) or ((folder / marker).exists() and not is_whole())):
            replace(complete.pop(0), folder, marker)
        if (folder / marker).exists():
            for path in [*complete, *abandoned(PREVIOUS)]:
                remove(path)
        elif is_empty(folder) and not companions(folder, COMPLETE):
            for path in abandoned(PREVIOUS)[:1]:
                path.rename(folder)
        for path in abandoned(PARTIAL):
            remove(path)


def interrupted(folder: Path) -> str | None:
    """What to do where a replacement of `folder` was interrupted; None where none was."""
    for path in [*companions(folder, COMPLETE, host="*"), *companions(folder, PREVIOUS, host="*")]:
        return f"its replacement was interrupted: move {path}, which is whole, to {folder}, or export again"
    return None


def check_replaceable(folder: Path) -> None:
    """Tries, beside `folder` and without changing it, what `replace` will do: better now than after minutes of work.

    Raises:
        ConfigurationError: nothing can be written there, or `folder` can be neither moved nor removed.
    """
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    place = parent / folder.name
    moved = companion(place, PARTIAL)
    try:
        with new_folder(place) as probe:
            (probe / "file").write_bytes(bytes(4096))
            probe.rename(moved)  # still locked
            _check_movable(folder, moved)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written: no new folder in {parent} ({error.strerror}); choose another output, or make "
            "it possible"
        ) from None
    finally:
        remove(moved)


def _check_movable(folder: Path, obstacle: Path) -> None:
    """Renames `folder` onto a folder with content, which never succeeds: POSIX finds every other obstacle first."""
    if not folder.exists() or os.name != "posix":
        return
    try:
        folder.rename(obstacle)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        if error.errno == errno.EXDEV:
            _check_removable(folder)
            return
        kind = "is a mount point and" if error.errno == errno.EBUSY else "exists and"
        raise ConfigurationError(
            f"{folder} {kind} cannot be replaced ({error.strerror}); name a folder inside it, or another output"
        ) from None
    obstacle.rename(folder)


def _check_removable(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{path} has to be removed and is not writable; change its permissions")


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with its content, also read-only folders; what cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, _, _ in os.walk(path):  # never through a link
            with suppress(OSError):
                os.chmod(folder, 0o700)  # noqa: PTH101
        shutil.rmtree(path, ignore_errors=True)


def _exchange(left: Path, right: Path) -> bool:
    """Swaps two folders atomically with Linux's ``renameat2(RENAME_EXCHANGE)``; False where that is not possible."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    at_fdcwd, rename_exchange = -100, 2
    return libc.renameat2(at_fdcwd, os.fsencode(left), at_fdcwd, os.fsencode(right), rename_exchange) == 0
