"""Paths as a user writes them; a leaf, because commands, bundles and checkpoints read them alike."""

from __future__ import annotations

import os
from pathlib import Path

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened


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
    """For ``type=`` of an argument, and for the paths of the Python API: the path that the user means.

    Raises:
        ConfigurationError: `text` is no path.
    """
    if not isinstance(text, str | os.PathLike) or not isinstance(path := os.fspath(text), str):
        raise ConfigurationError(f"a path is {shortened(text)}; expected a str or a pathlib.Path")
    return Path(expanded(path))
