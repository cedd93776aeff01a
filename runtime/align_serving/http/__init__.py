"""The HTTP service: embeddings of texts and images as OpenAI's clients ask for them.

``align-serve BUNDLE`` runs it in one process, and ``serve run align_serving.http:app bundle=BUNDLE`` on a Ray cluster.
Both are shells around `align_serving.http.opening.application`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["app"]


def app(arguments: Mapping[str, Any]) -> Any:
    """The application for Ray Serve; see `align_serving.http.deployment.build`."""
    from align_serving.http.deployment import build  # Ray is needed for this alone

    return build(arguments)
