// An image in the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace align {

// Rows of uint8 pixels: grey, RGB or RGBA by the number of channels; `stride` is the distance of rows in bytes.
struct ImageView {
    const std::uint8_t *data;
    std::size_t width, height, stride;
    int channels;

    const std::uint8_t *row(std::size_t y) const { return data + y * stride; }
};

} // namespace align
