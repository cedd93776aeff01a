"""The identity of our own code: two versions of a package that differ in one file differ in their hash.

Cached statistics and finished bundles depend on it; the version of the distribution stays the same while somebody works
on a pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

HEX_DIGITS = 12


def package_hash(packages: Iterable[ModuleType]) -> str:
    """The first `HEX_DIGITS` of the sha256 of every file of `packages`: modules, templates and data."""
    digest = hashlib.sha256()
    for package in packages:
        for name, file in package_files(Path(package.__path__[0])):
            digest.update(f"{package.__name__}/{name}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:HEX_DIGITS]


def package_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of the files below `root` in order, without compiled modules and what editors leave behind."""
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if not hidden and not name.endswith(("~", ".pyc", ".orig", ".rej")) and file.is_file():
            yield name, file
