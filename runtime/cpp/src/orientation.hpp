// The orientation of an encoded image, read from EXIF or XMP without trusting either; see align_runtime.orientation.
#pragma once

#include <optional>
#include <string_view>

#include "decoded_image.hpp"

namespace align {

// Metadata of a file that may hold an orientation.
struct Metadata {
    std::optional<std::string_view> exif, xmp;
};

// The orientation, 1 to 8; 1 (upright) where the metadata say nothing that is usable.
int orientation_of(const Metadata &metadata);

// `image` turned by `orientation`.
DecodedImage upright(DecodedImage image, int orientation);

} // namespace align
