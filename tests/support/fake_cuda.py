"""A double of CUDA's runtime on memory of the host, which checks every pointer.

Work on a stream runs when the stream is synchronized, not before: a result that is read too early is garbage. Copies
must stay within their blocks; blocks must be live, freed once, and not in use when they are freed.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from support.strict_double import Violation, make_module
from support.surfaces import read_surface

GARBAGE = 0xA5
GPU = (b"NVIDIA Double 80GB", 9, 0)


@dataclass
class Work:
    """Work on a stream, and the addresses of the blocks that it reads and writes."""

    run: Callable[[], None]
    addresses: tuple[int, ...]


@dataclass
class Block:
    memory: Any
    size: int
    pinned: bool


@dataclass
class FakeStream:
    pending: list[Work] = field(default_factory=list)
    recorded: list[Work] | None = None


class Handle:
    """A handle of a stream or graph."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


class FakeCuda:
    """The state of the GPU, and CUDA's functions.

    Attributes:
        calls: how often each function was called.
        failures: by function, the number of the call (from 1) that fails, and the name of the error.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, tuple[int, str]] = {}
        self.blocks: dict[int, Block] = {}
        self.streams: dict[int, FakeStream] = {}
        self.gpus: tuple[tuple[bytes, int, int], ...] = (GPU,)  # name and compute capability of each
        self.owners: dict[int, int] = {}  # GPU by the address of a block or the number of a stream
        self.current = threading.local()
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.users: list[Callable[[int], bool]] = []  # each returns whether it uses the block at an address
        self._next = 100
        self._lock = threading.RLock()
        self.module = make_module("cuda.bindings.runtime", read_surface("cudart-13"), {}, _Guarded(self))

    def leaks(self) -> dict[str, int]:
        """Numbers of what is not freed, by kind."""
        held = {
            "blocks": self.blocks, "streams": self.streams, "graphs": self.graphs, "executables": self.executables,
        }  # fmt: skip
        return {name: len(values) for name, values in held.items() if values}

    def block(self, address: int, size: int, pinned: bool) -> Block:
        """Returns the live block at `address`, of at least `size` bytes."""
        found = self.blocks.get(address)
        if found is None or found.pinned != pinned:
            raise Violation(f"{address:#x} is no live block of the {'host' if pinned else 'GPU'}")
        if not pinned:
            self._check_owner(address)
        if size > found.size:
            raise Violation(f"{size} bytes at {address:#x}, where {found.size} are")
        return found

    def stream(self, handle: Any) -> FakeStream:
        if int(handle) not in self.streams:
            raise Violation(f"{int(handle)} is no live stream; the default stream must not be used")
        self._check_owner(int(handle))
        return self.streams[int(handle)]

    def _check_owner(self, thing: int) -> None:
        """Whether `thing` is on the current GPU of this thread."""
        if self.owners[thing] != self._gpu():
            raise Violation(f"a thread whose GPU is {self._gpu()} uses what is on GPU {self.owners[thing]}")

    def _gpu(self) -> int:
        return int(getattr(self.current, "gpu", 0))

    def enqueue(self, handle: Any, work: Work) -> None:
        """Appends `work` to a stream, or to the graph that the stream captures."""
        stream = self.stream(handle)
        (stream.pending if stream.recorded is None else stream.recorded).append(work)

    def number(self) -> int:
        self._next += 1
        return self._next

    # CUDA's functions. Each returns a tuple of status and results.

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._done(len(self.gpus))

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return self._done(self._gpu())

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        if not 0 <= device < len(self.gpus):
            raise Violation(f"there is no GPU {device}")
        self.current.gpu = device
        return self._done()

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return self._done(13000)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        properties = ModuleType("cudaDeviceProp")
        name, major, minor = self.gpus[device]
        properties.__dict__.update(name=name, major=major, minor=minor)
        return self._done(properties)

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:
        return self._done(f"the double gives {error.name}".encode())

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate(size, pinned=False)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate(size, pinned=True)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        return self._free(devPtr, pinned=False)

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        return self._free(ptr, pinned=True)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if flags != self.module.cudaStreamNonBlocking:
            raise Violation("a stream that synchronizes with the default stream")
        self.streams[self.number()] = FakeStream()
        self.owners[self._next] = self._gpu()
        return self._done(Handle(self._next))

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        if self.stream(stream).pending:
            raise Violation("a stream is destroyed with work on it")
        del self.streams[int(stream)]
        return self._done()

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        found = self.stream(stream)
        if found.recorded is not None:
            raise Violation("a stream is synchronized during its capture")
        pending, found.pending = found.pending, []
        for work in pending:
            work.run()
        return self._done()

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        kinds = self.module.cudaMemcpyKind
        to_device = kind is kinds.cudaMemcpyHostToDevice
        if not to_device and kind is not kinds.cudaMemcpyDeviceToHost:
            raise Violation(f"a copy of the kind {kind}")
        self.block(dst, count, pinned=not to_device)
        self.block(src, count, pinned=to_device)

        def copy() -> None:
            self.block(dst, count, pinned=not to_device)
            self.block(src, count, pinned=to_device)
            ctypes.memmove(dst, src, count)

        self.enqueue(stream, Work(copy, (dst, src)))
        return self._done()

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        found = self.stream(stream)
        if mode is not self.module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
            raise Violation("a capture that forbids calls of other threads")
        if found.pending or found.recorded is not None:
            raise Violation("a capture begins with work on the stream, or twice")
        found.recorded = []
        return self._done()

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        found = self.stream(stream)
        if found.recorded is None:
            raise Violation("a capture ends that has not begun")
        self.graphs[self.number()], found.recorded = found.recorded, None
        return self._done(Handle(self._next))

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        self.executables[self.number()] = list(self.graphs[int(graph)])
        return self._done(Handle(self._next))

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        self._remove(self.graphs, graph, "graph")
        return self._done()

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:
        self._remove(self.executables, graphExec, "executable graph")
        return self._done()

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any, ...]:
        if int(graphExec) not in self.executables:
            raise Violation("a graph is launched that does not exist")
        for work in self.executables[int(graphExec)]:
            self.enqueue(stream, work)
        return self._done()

    def _done(self, *results: Any) -> tuple[Any, ...]:
        return (self.module.cudaError_t.cudaSuccess, *results)

    def _allocate(self, size: int, pinned: bool) -> tuple[Any, ...]:
        if size <= 0:
            raise Violation(f"a block of {size} bytes")
        if any(stream.recorded is not None for stream in self.streams.values()):
            raise Violation("memory is allocated during a capture")
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, GARBAGE, size)
        self.blocks[ctypes.addressof(memory)] = Block(memory, size, pinned)
        self.owners[ctypes.addressof(memory)] = self._gpu()
        return self._done(ctypes.addressof(memory))

    def _free(self, address: int, pinned: bool) -> tuple[Any, ...]:
        self.block(address, 0, pinned)  # raises if it was freed before
        if any(address in work.addresses for stream in self.streams.values() for work in stream.pending):
            raise Violation("a block is freed before the work on it is done")
        if any(address in work.addresses for works in self.executables.values() for work in works):
            raise Violation("a block is freed that a captured graph uses")
        if any(uses(address) for uses in self.users):
            raise Violation("a block is freed that a context uses")
        del self.blocks[address]
        return self._done()

    @staticmethod
    def _remove(held: dict[int, Any], handle: Any, what: str) -> None:
        if int(handle) not in held:
            raise Violation(f"a {what} is freed twice")
        del held[int(handle)]


class _Guarded:
    """Calls CUDA's functions one at a time, counts them, and injects the failures of a test."""

    def __init__(self, fake: FakeCuda) -> None:
        self._fake = fake

    def __getattr__(self, name: str) -> Any:
        fake = self._fake
        function = getattr(fake, name)  # AttributeError: not implemented

        def call(**arguments: Any) -> tuple[Any, ...]:
            with fake._lock:
                fake.calls[name] += 1
                place, error = fake.failures.get(name, (0, ""))
                if fake.calls[name] == place:
                    if name == "cudaStreamEndCapture":  # a failed capture has ended too
                        fake.stream(arguments["stream"]).recorded = None
                    results = (None,) if _results(name) else ()
                    return (getattr(fake.module.cudaError_t, error), *results)
                return function(**arguments)

        return call


def _results(name: str) -> int:
    """Returns the number of results of a function besides its status."""
    return len(read_surface("cudart-13").functions[name][0].results) - 1
