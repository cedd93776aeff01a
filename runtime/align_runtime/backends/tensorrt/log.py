"""TensorRT's log: warnings go to Python's logging, errors into the messages of exceptions."""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from typing import TYPE_CHECKING

from align_runtime.backends.tensorrt import libraries

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

logger = logging.getLogger(__name__)
_errors: deque[str] = deque(maxlen=8)


@cache
def tensorrt_log() -> trt.ILogger:
    """The logger of this process; TensorRT requires the same one for all of its objects."""

    class Log(libraries.trt.ILogger):
        def __init__(self) -> None:
            libraries.trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (libraries.trt.ILogger.INTERNAL_ERROR, libraries.trt.ILogger.ERROR):
                _errors.append(msg)  # reported by whoever raises the exception
            elif severity == libraries.trt.ILogger.WARNING:
                logger.warning("%s", msg)
            else:
                logger.debug("%s", msg)

    return Log()


def take_errors() -> str:
    """TensorRT's errors since the last call, on one line."""
    errors = "; ".join(" ".join(message.split()) for message in _errors)
    _errors.clear()
    return errors or "TensorRT gives no reason"
