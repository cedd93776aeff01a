"""TensorRT's messages go to Python's logging, and its last errors into ours."""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from typing import TYPE_CHECKING

from align_runtime.backends.tensorrt import libraries

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

_logger = logging.getLogger(__name__)
_errors: deque[str] = deque(maxlen=8)


@cache
def tensorrt_log() -> trt.ILogger:
    """The one logger of this process: TensorRT wants the same for everything."""

    class Log(libraries.trt.ILogger):
        def __init__(self) -> None:
            libraries.trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (libraries.trt.ILogger.INTERNAL_ERROR, libraries.trt.ILogger.ERROR):
                _errors.append(msg)  # whoever raises our error tells it
            elif severity == libraries.trt.ILogger.WARNING:
                _logger.warning("%s", msg)
            else:
                _logger.debug("%s", msg)

    return Log()


def take_errors() -> str:
    """What TensorRT complained of since the last call, on one line for a message."""
    told = "; ".join(" ".join(message.split()) for message in _errors)
    _errors.clear()
    return told or "TensorRT gives no reason"
