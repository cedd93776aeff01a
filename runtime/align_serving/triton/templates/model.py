"""A model of Triton's Python backend, written by align-triton.

The bundle and ``settings.json``, the keywords of ``align_runtime.load``, lie beside this file. The code is that of the
package align-onnx, which has to be installed for the Python of the server.
"""

from align_serving.triton.python_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
