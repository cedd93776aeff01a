// Images to uint8 pixels, bit-equal to Python's align_runtime.images.
#pragma once

#include <cstddef>
#include <cstdint>

#include "image_view.hpp"
#include "preprocessing.hpp"
#include "transparency.hpp"

namespace align {

// What an image may cost.
struct Limits {
    std::size_t max_pixels = std::size_t{1} << 26; // width × height

    // Of an encoded image: 8 bytes, 16-bit RGBA, for each pixel, and 16 MiB beside them.
    std::size_t max_file_bytes() const { return 8 * max_pixels + (std::size_t{16} << 20); }
};

// Throws InputError for an image that has no pixels or too many.
void check_size(std::size_t width, std::size_t height, const Limits &limits);

// Resizes and crops `image` to `pixels`, uint8 (height, width, 3) RGB as in `config`. The alpha channel of four is
// dropped, or laid on `background`. Throws InputError for an image without data, with other channels or a stride that
// is too small, that is too large, or would be on the way; std::bad_alloc.
void preprocess(const Preprocessing &config, const ImageView &image, std::uint8_t *pixels,
                const Background &background = {}, const Limits &limits = {});

} // namespace align
