"""How one tower runs: what `align_runtime.load` sets for both towers, and `align-bench tune` finds for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align_runtime.devices import backend_of, split_device
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.json_files import require
from align_runtime.processors import check_thread_count
from align_runtime.scheduling import check_batch_size, stream_count

MAX_PRECISION = 32  # characters of a name


@dataclass(frozen=True)
class TowerSettings:
    """What runs a tower, and how. The defaults are those of `align_runtime.load`.

    Attributes:
        precision: variant of the graph, or what the device computes it in.
        device: never ``"auto"``.
        threads: of one run on a CPU; None for all cores.
        streams: single-threaded runs side by side on a CPU; None for one per thread.
        batch_size: inputs of one run, of a call that names no other; None chooses it.

    Raises:
        ConfigurationError: a device is unknown, a number is out of range, or is set for a GPU, which has none.
    """

    precision: str = "fp32"
    device: str = "cpu"
    threads: int | None = None
    streams: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str) or not 0 < len(self.precision) <= MAX_PRECISION:
            raise ConfigurationError(f"precision is {shortened(self.precision)}; expected a name such as 'fp32'")
        split_device(self.device)
        check_thread_count("threads", self.threads)
        if self.threads is not None and not self.on_cpu:
            raise ConfigurationError(f"threads is {self.threads}, but {self.device} computes on the GPU; leave it out")
        if self.streams is not None:
            stream_count(self.device, self.threads, self.streams)
        check_batch_size(self.batch_size)

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU computes."""
        return backend_of(self.device).on_cpu

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> TowerSettings:
        """Reads what `to_json` made.

        Raises:
            ConfigurationError: a key is missing, or as above.
        """
        try:
            return cls(
                precision=require(where, values, "precision", str),
                device=require(where, values, "device", str),
                **{
                    name: require(where, values, name, (int, type(None)))
                    for name in ("threads", "streams", "batch_size")
                },
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def __str__(self) -> str:
        """``int8 on cpu, 2 threads, 1 stream, batch 8``; what is left at its default is not named."""
        parts = [f"{printable(self.precision)} on {self.device}"]
        for name, value in (("thread", self.threads), ("stream", self.streams)):
            parts += [] if value is None else [f"{value} {name}{'' if value == 1 else 's'}"]
        return ", ".join([*parts, *([] if self.batch_size is None else [f"batch {self.batch_size}"])])
