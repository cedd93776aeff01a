// Files in memory, JPEG or PNG, to pixels: upright, in RGB or grey, and bounded before anything is decoded.
#pragma once

#include <string_view>

#include "decoded_image.hpp"
#include "images.hpp"

namespace align {

// The image in the file `bytes`; transparency is dropped, or laid on `background`. Throws InputError if it is in
// another format, too large or too expensive to decode, or cannot be decoded; std::bad_alloc.
DecodedImage decode_image(std::string_view bytes, const Limits &limits = {}, const Background &background = {});

} // namespace align
