"""NVIDIA Triton Inference Server: a model repository from a bundle, and a client of its graphs.

``align-triton BUNDLE REPOSITORY`` writes models of two kinds. Those of the Python backend take strings and encoded
images, and answer with embeddings (`python_backend`). Those of the ONNX Runtime and TensorRT backends are the graphs
themselves; `connect` tokenizes and preprocesses for them where the client runs.
"""

from __future__ import annotations

from align_serving.triton.client import ClientOptions, TritonModel, connect

__all__ = ["ClientOptions", "TritonModel", "connect"]
