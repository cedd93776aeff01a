"""Every error that align-onnx raises on purpose.

::

    AlignError
    ├── ConfigurationError          a configuration or option that is not understood or out of range
    ├── CheckpointError             files or weights of a checkpoint: missing, damaged, unexpected, of the wrong shape
    ├── InputError                  a image or a text that cannot be embedded
    ├── BundleError                 a bundle that is missing, damaged, or of another schema
    ├── BackendUnavailableError     a package, library or device that was asked for and is not there
    ├── DeviceError                 a device that ran out of memory or failed while it computed
    ├── BuildError                  an export that could not be finished
    ├── PrecisionError              a graph that does not compute in the precision that it is named for
    └── ParityError                 results further from the reference than allowed

A message says what happened, the value seen and the fix, on one line: commands print it as it is.
"""

from __future__ import annotations


class AlignError(Exception):
    """Base of all errors of this project. `exit_code` is what a command returns when one ends it."""

    exit_code = 2


class ConfigurationError(AlignError, ValueError):
    """A configuration file, key, value or option that is not understood or out of range."""


class CheckpointError(AlignError):
    """A checkpoint whose files or weights are missing, damaged, unexpected or of the wrong shape."""


class InputError(AlignError, ValueError):
    """A image or a text that cannot be embedded. `index` is its place in the input, where there is one."""

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message if index is None else f"input {index}: {message}")
        self.message = message
        self.index = index

    def shifted(self, by: int) -> InputError:
        """The same error for an input that stands `by` places later, because batches came before."""
        return self if self.index is None else InputError(self.message, self.index + by)


class BundleError(AlignError):
    """A bundle that is missing, damaged or of another schema version."""


class BackendUnavailableError(AlignError):
    """A package, library or device that was asked for and cannot be had here. Nothing falls back silently."""


class DeviceError(AlignError):
    """A device that ran out of memory or failed while it computed."""

    exit_code = 1


class BuildError(AlignError):
    """An export that could not be finished."""

    exit_code = 1


class PrecisionError(AlignError):
    """A graph that does not compute in the precision that it is named for."""

    exit_code = 1


class ParityError(AlignError):
    """Results that are further from the reference than allowed.

    Attributes:
        subject: the graph.
        metric: name of the measure that failed, e.g. ``"max_abs"``.
        limit: the value allowed.
        observed: the value measured.
        sample: the sample on which it was measured.
    """

    exit_code = 1

    def __init__(
        self,
        subject: str,
        metric: str,
        limit: float,
        observed: float,
        sample: str,
        advice: str = "the graph does not compute what the reference computes",
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
