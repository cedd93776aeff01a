// Preprocessing of images for the vision tower, from the bundle's manifest; see align_runtime.preprocessing.
//
//     decode → RGB → resize → centre crop → uint8 pixels → rescale → normalize → pixel_values
//
// images.hpp computes the uint8 pixels. What follows is part of the graph, or `normalize` for graphs with float input.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "image_size.hpp"
#include "json.hpp"
#include "resample_filters.hpp"

namespace align {

struct Preprocessing {
    std::optional<SizeRule> size; // to resize to
    Filter resample;
    std::optional<ImageSize> crop_size; // of the centre crop; one larger than the image pads with black

    // float32 `pixel_values` by channel and uint8 value, rounded as in transformers.
    std::array<std::array<float, 256>, 3> table;

    // Reads the object of the manifest. Throws ConfigurationError for a key that is missing or unknown, and for values
    // that are out of range, contradict each other, or give pixels that are not finite or whose size depends on the
    // image.
    static Preprocessing from_json(const Json &values);

    // Of every preprocessed image.
    ImageSize pixels_size() const { return crop_size ? *crop_size : size->target({1, 1}); }
    std::size_t pixels_height() const { return pixels_size().height; }
    std::size_t pixels_width() const { return pixels_size().width; }
    std::size_t pixels_bytes() const { return pixels_height() * pixels_width() * 3; }

    // float32 (rows, 3, height, width) of uint8 `pixels` (rows, height, width, 3).
    std::vector<float> normalize(const std::vector<std::uint8_t> &pixels, std::size_t rows) const;
};

} // namespace align
