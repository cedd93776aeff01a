"""GIF: the palette and the first frame. Comments, application data and further frames are left out."""

from __future__ import annotations

from align_runtime.containers.stripped import MAX_PARTS, Stripped, no_header, too_many

SCREEN_BYTES, FRAME_BYTES = 13, 10
EXTENSION, FRAME, TRAILER, GRAPHIC_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def strip(data: bytes) -> Stripped:
    """The first frame of the GIF file `data`. Its size is that of the screen, or larger where the frame reaches out.

    Raises:
        InputError: it has no frame, or too many blocks.
    """
    if len(data) < SCREEN_BYTES:
        raise no_header("GIF")
    position = SCREEN_BYTES + _palette_bytes(data[10])
    kept, blocks = [data[:position]], 0
    while position < len(data) and data[position] != TRAILER:
        start = position
        if data[position] == FRAME and position + FRAME_BYTES < len(data):
            left, top, width, height = (
                int.from_bytes(data[at : at + 2], "little") for at in range(position + 1, position + 9, 2)
            )
            screen = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
            # Coded data end with a block of length 0; the decoder finds it, and reads no further.
            kept.append(data[position:])
            canvas = max(next(screen), left + width), max(next(screen), top + height)
            return Stripped(b"".join(kept), canvas)
        position += 1
        if data[start] == EXTENSION:
            position += 1
            while position < len(data) and (length := data[position]):
                position, blocks = position + 1 + length, blocks + 1
            position += 1
            if data[start + 1 : start + 2] == bytes([GRAPHIC_CONTROL]):
                kept.append(data[start:position])
        blocks += 1
        if blocks > MAX_PARTS:
            raise too_many(blocks, "blocks")
    raise no_header("GIF")


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
