// Resizing as Pillow does it, to the bit: the same filters, the same fixed-point arithmetic, the same two passes.
//
// Rows and columns are resized one after the other, with uint8 in between, in the order that Pillow 13 chooses (before
// it rows came first, always; the results differ by rounding). An output pixel depends on its own weights alone, so any
// window of the result can be computed without the rest of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "image_size.hpp"
#include "image_view.hpp"
#include "resample_filters.hpp"
#include "resample_passes.hpp"

namespace align {

// A part of an image.
struct Window {
    std::size_t left, top, width, height;
};

// Writes the RGB pixels of `window` of `image`, resized to `size`, to `pixels`, whose rows are `stride` bytes apart.
// Grey becomes RGB, and the alpha channel of RGBA is dropped.
void resample(const ImageView &image, Filter filter, ImageSize size, const Window &window, std::uint8_t *pixels,
              std::size_t stride, const ResamplePasses &passes = best_passes());

} // namespace align
