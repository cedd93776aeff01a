// Transparency: dropped, or laid on a colour, as align_runtime.transparency does it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "image_view.hpp"

namespace align {

using Colour = std::array<std::uint8_t, 3>; // red, green, blue
using Background = std::optional<Colour>;   // the colour behind transparent pixels; nothing drops the alpha channel

// RGB of an RGBA image in memory on `background`, with the float64 arithmetic of transformers' `convert_to_rgb`.
std::vector<std::uint8_t> composite(const ImageView &image, const Colour &background);

// `pixel`, RGBA of a decoded file, on `background`, with the integers of Pillow's `alpha_composite`.
Colour composite_pixel(const std::uint8_t *pixel, const Colour &background);

} // namespace align
