"""OpenVINO's provider of ONNX Runtime, which takes processors of Intel alone."""

from __future__ import annotations

from typing import Any

import onnxruntime
import pytest

from align_runtime.backends import openvino
from align_runtime.errors import BackendUnavailableError


def plugin_or_skip() -> Any:
    """The package of the provider; skips the test where it is missing, or takes no processor of this machine."""
    plugin = pytest.importorskip("onnxruntime_ep_openvino")
    try:
        openvino._cpu(onnxruntime)
    except BackendUnavailableError as error:
        if "takes no processor" not in str(error):
            raise
        pytest.skip(str(error))
    return plugin
