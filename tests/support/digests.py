"""What is in a folder, as one value to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path


def digests(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """The sha256 of each file below `folder` but those with a name in `without`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }
