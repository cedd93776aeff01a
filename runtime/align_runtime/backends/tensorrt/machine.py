"""The GPU, driver and TensorRT of this machine."""

from __future__ import annotations

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.cuda import check_gpu, checked
from align_runtime.engines import Machine


def this_machine() -> Machine:
    """What engines are chosen by.

    Raises:
        BackendUnavailableError: TensorRT, CUDA or a GPU is missing.
    """

    check_gpu()
    properties = checked(libraries.cudart.cudaGetDeviceProperties(0), "describe the GPU")
    driver = checked(libraries.cudart.cudaDriverGetVersion(), "tell the driver's version")
    return Machine(
        gpu=properties.name.decode(errors="replace").rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        tensorrt=libraries.trt.__version__,
    )
