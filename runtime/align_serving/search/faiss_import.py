"""faiss, imported when it is first used."""

from __future__ import annotations

from typing import Any

from align_runtime.errors import BackendUnavailableError
from align_serving.embed.arrow import INSTALL


def import_faiss() -> Any:
    """The module ``faiss``.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise BackendUnavailableError(
            f"faiss, which searches embeddings, cannot be imported ({error}); install it with: {INSTALL}"
        ) from None
    return faiss
