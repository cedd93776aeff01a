"""Every error that align-onnx raises on purpose.

::

    AlignError
    ├── ConfigurationError          an option, configuration file or key that is unknown or out of range
    ├── CheckpointError             files or weights of a checkpoint: missing, damaged, unexpected, of the wrong shape
    ├── InputError                  an image or text that cannot be embedded
    ├── BundleError                 a bundle that is missing, damaged or of another schema version
    ├── BackendUnavailableError     a package, library or device that was asked for and is not available
    ├── DeviceError                 a device that ran out of memory or failed while it computed
    ├── BuildError                  an export that could not be completed
    ├── PrecisionError              a graph that does not compute in the precision that it is labelled with
    └── ParityError                 embeddings further from the reference than allowed

A message is one line of at most `MAX_MESSAGE` characters: what happened, the value seen, the fix. Commands print it as
it is, and return the error's `exit_code`: 1 for a failed gate or device, 2 for a wrong call or input.
"""

from __future__ import annotations

from align_runtime.foreign_text import printable

MAX_MESSAGE = 500


class AlignError(Exception):
    """Base of all errors of this project.

    A longer message is cut in the middle, because the fix is at its end. Control characters are escaped.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    """`message` on one line of at most `MAX_MESSAGE` characters."""
    return printable(" ".join(str(message).splitlines()), MAX_MESSAGE)


class ConfigurationError(AlignError, ValueError):
    """An option, configuration file, key or value that is unknown or out of range."""


class CheckpointError(AlignError):
    """A checkpoint whose files or weights are missing, damaged, unexpected or of the wrong shape."""


class InputError(AlignError, ValueError):
    """An image or text that cannot be embedded.

    Attributes:
        message: what is wrong, without the index.
        index: position in the input; None where the input as a whole is wrong.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message if index is None else f"input {index}: {message}")
        self.message = message
        self.index = index

    def at(self, index: int) -> InputError:
        """The same error at `index`, without its traceback and cause, which would keep the input in memory."""
        return InputError(self.message, index)


class BundleError(AlignError):
    """A bundle that is missing, damaged or of another schema version."""


class BackendUnavailableError(AlignError):
    """A package, library or device that was asked for and is not available. There is never a silent fallback."""


class DeviceError(AlignError):
    """A device that ran out of memory or failed while it computed."""

    exit_code = 1


class BuildError(AlignError):
    """An export that could not be completed."""

    exit_code = 1


class PrecisionError(AlignError):
    """A graph that does not compute in the precision that it is labelled with."""

    exit_code = 1


class ParityError(AlignError):
    """Embeddings that are further from the reference than allowed.

    Attributes:
        subject: file of the graph.
        metric: the measure that failed: ``"max_abs"``, ``"min_cosine"`` or ``"min_centred_cosine"``.
        limit: the value allowed.
        observed: the value measured.
        sample: name of the sample that is worst by `metric`.
    """

    exit_code = 1

    def __init__(
        self,
        subject: str,
        metric: str,
        limit: float,
        observed: float,
        sample: str,
        advice: str = "the graph differs from the reference by more than allowed",
    ) -> None:
        super().__init__(
            f"{subject}: {metric} is {observed:.3g}, allowed {limit:.3g} (worst sample: {sample}); {advice}"
        )
        self.subject = subject
        self.metric = metric
        self.limit = limit
        self.observed = observed
        self.sample = sample

    def advised(self, advice: str) -> ParityError:
        """The same error with `advice` at the end of its message."""
        return ParityError(self.subject, self.metric, self.limit, self.observed, self.sample, advice)
