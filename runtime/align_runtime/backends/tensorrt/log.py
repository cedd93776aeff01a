"""The log of TensorRT and of TensorRT for RTX: warnings go to Python's logging, errors into messages of exceptions."""

from __future__ import annotations

import logging
import re
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

logger = logging.getLogger(__name__)
# What every graph of ours is told: its ids are INT64, and kernels take the FP16 scales of Q/DQ as FP32.
EXPECTED = ("has Int64 binding", "Converting conv activation scales", "Converting conv weight scales")
# On a machine without a driver, each error brings this one along.
WITHOUT_DRIVER = re.compile(r"\[checkMacros\.cpp::catchCudaError::\d+\] .*?\(cudaError \d+: [^)]*\)\)")
SOURCE = re.compile(r" In \w+ at /_src/\S+:\d+")  # of TensorRT, where the error arose
_errors: deque[str] = deque(maxlen=8)


@cache
def tensorrt_log(api: Any) -> Any:
    """The logger of the module `api` in this process; TensorRT requires the same one for all of its objects."""

    class Log(api.ILogger):
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR):
                _errors.append(msg)  # reported by whoever raises the exception
            elif severity == api.ILogger.WARNING and not any(words in msg for words in EXPECTED):
                logger.warning("%s", msg)
            else:
                logger.debug("%s", msg)

    return Log()


def take_errors() -> str:
    """TensorRT's errors since the last call, on one line."""
    errors = "; ".join(map(plain, _errors))
    _errors.clear()
    return errors or "TensorRT gives no reason"


def plain(message: str) -> str:
    """`message` of TensorRT on one line, without its own source and the error that it adds where there is no driver."""
    return " ".join(SOURCE.sub("", WITHOUT_DRIVER.sub("", message)).split())
