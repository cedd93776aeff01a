"""A copy of a CUDA library in which the code of all other architectures is zeros.

    python -m benchmarks.gpu.keep_sm LIBRARY OUT ARCHITECTURE

The copy has the same size and layout and compresses to a fraction, for carrying to a machine with one known GPU. It
walks the fat binary containers: a header of 16 bytes with the size of the entries, each of which has its kind, header
size, payload size and architecture. Only for a test machine: on any other GPU the copy has no code.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER, MAX_BYTES, ARCHITECTURE = 16, 1 << 30, 28  # ARCHITECTURE: where an entry has it


def blank(path: Path, keep: int) -> tuple[int, int]:
    """Zeros the code of all architectures but `keep` in the library `path`; bytes that are kept, and that are not."""
    kept = blanked = 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        position = 0
        while (start := data.find(MAGIC, position)) >= 0:
            _, _, header, size = struct.unpack_from("<IHHQ", data, start)
            if header != HEADER or size > MAX_BYTES or start + header + size > len(data):
                position = start + len(MAGIC)  # no container, but the same bytes
                continue
            entry, end = start + header, start + header + size
            while entry < end:
                _, _, head, payload = struct.unpack_from("<HHIQ", data, entry)
                (architecture,) = struct.unpack_from("<I", data, entry + ARCHITECTURE)
                if head == 0:
                    break
                if architecture == keep:
                    kept += payload
                else:
                    data[entry + head : entry + head + payload] = bytes(payload)
                    blanked += payload
                entry += head + payload
            position = end
    return kept, blanked


def main() -> None:
    source, target, architecture = sys.argv[1:]
    shutil.copyfile(source, target)
    kept, blanked = blank(Path(target), int(architecture))
    print(f"kept {kept / 1e6:.1f} MB of code for sm_{architecture}, blanked {blanked / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
