"""The runs of a model on a processor's cores, which decide whether a run takes all cores or one.

A run that is alone is soonest with all cores. Runs side by side compute more in the same time with a core each: no
thread waits for another one within an operator, or spins while another run needs its core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Runs:
    """What runs now. Any number of threads may use it, and handlers of signals."""

    def __init__(self) -> None:
        self._inside: deque[None] = deque()  # whose operations are atomic: no lock that a handler could find taken

    @contextmanager
    def entered(self) -> Iterator[bool]:
        """A run is inside while this block runs; yields whether it was the only one when it began."""
        alone = not self._inside
        self._inside.append(None)
        try:
            yield alone
        finally:
            self._inside.pop()
