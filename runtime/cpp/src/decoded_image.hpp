// The pixels of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "image_view.hpp"

namespace align {

// Rows of grey (1 channel) or RGB (3) pixels without gaps.
struct DecodedImage {
    std::size_t width, height;
    int channels;
    std::unique_ptr<std::uint8_t[]> data;

    std::size_t stride() const { return width * static_cast<std::size_t>(channels); }
    std::uint8_t *row(std::size_t y) { return data.get() + y * stride(); }
    ImageView view() const { return {data.get(), width, height, stride(), channels}; }
};

} // namespace align
