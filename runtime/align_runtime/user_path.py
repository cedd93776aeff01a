"""Paths as a user writes them; a leaf, because commands, bundles and checkpoints read them alike."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(text: str) -> str:
    """`text` with ``~`` and ``~user`` at its start replaced by the home folder, as a shell does.

    A file that exists as it is written wins, and so does the name of a user that nobody has: ``~backup.jpg``.
    """
    if not text.startswith("~") or os.path.lexists(text):
        return text
    try:
        return os.path.expanduser(text)  # noqa: PTH111  (pathlib raises an error where nobody has the name)
    except ValueError:  # a NUL character
        return text


def user_path(text: str | os.PathLike[str]) -> Path:
    """For ``type=`` of an argument, and for the paths of the Python API: the path that the user means."""
    return Path(expanded(os.fspath(text)))
