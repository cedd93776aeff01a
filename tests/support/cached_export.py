"""align-export in a process of its own that need not trace anew: its first argument is the folder of kept traces."""

from __future__ import annotations

import sys
from pathlib import Path

import align_exporter.pipeline
from align_exporter.command import main as export
from support.trace_cache import TraceCache


def main() -> int:
    align_exporter.pipeline.trace = TraceCache(Path(sys.argv.pop(1)))
    return export()
