// JPEG through libjpeg-turbo, with Pillow's settings.
#pragma once

#include <string_view>

#include "decoded_image.hpp"

namespace align {

// The pixels of the JPEG `data`, `width` × `height` by its header: grey, or RGB of everything else. Throws InputError
// if it cannot be decoded, or ends early; std::bad_alloc.
DecodedImage decode_jpeg(std::string_view data, std::size_t width, std::size_t height);

} // namespace align
