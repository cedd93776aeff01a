"""Names of files in a bundle: those that have a meaning, and which ones a manifest may list."""

from __future__ import annotations

from pathlib import PurePosixPath

from align_runtime.errors import ConfigurationError

MANIFEST_NAME = "align.json"
# The record of one build: no part of what a bundle is, so the manifest does not list it.
REPORT_NAMES = ("report.html", "report.json")


def inside(name: str) -> str:
    """`name` if it is a plain relative path that cannot leave the bundle."""
    path = PurePosixPath(name)
    plain = bool(name) and not path.is_absolute() and str(path) == name and ".." not in path.parts
    if not plain or "\\" in name or ":" in name or "\0" in name or name in (".", MANIFEST_NAME):
        raise ConfigurationError(f"the path {name!r} is not a plain path inside the bundle")
    return name
