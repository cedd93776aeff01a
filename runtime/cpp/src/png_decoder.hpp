// PNG, decoded by the rules of Pillow's own decoder, so that damaged files give what they give in Python, too.
#pragma once

#include "decoded_image.hpp"
#include "png_container.hpp"
#include "transparency.hpp"

namespace align {

// The pixels of `png` in RGB; transparency is dropped, or laid on `background`. Levels of 16-bit grey above 255 are
// 255, of 16-bit colours the upper byte counts, and gamma is not applied. Throws InputError if it cannot be decoded.
DecodedImage decode_png(const PngImage &png, const Background &background);

} // namespace align
