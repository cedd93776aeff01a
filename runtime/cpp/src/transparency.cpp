#include "transparency.hpp"

#include <cmath>

namespace align {

std::vector<std::uint8_t> composite(const ImageView &image, const Colour &background) {
    std::vector<std::uint8_t> rgb(image.height * image.width * 3);
    std::uint8_t *out = rgb.data();
    for (std::size_t y = 0; y < image.height; ++y) {
        const std::uint8_t *pixel = image.row(y);
        for (std::size_t x = 0; x < image.width; ++x, pixel += 4, out += 3) {
            const double alpha = pixel[3] / 255.0;
            for (std::size_t c = 0; c < 3; ++c) // half to even, as numpy
                out[c] = static_cast<std::uint8_t>(std::nearbyint(alpha * pixel[c] + (1 - alpha) * background[c]));
        }
    }
    return rgb;
}

Colour composite_pixel(const std::uint8_t *pixel, const Colour &background) {
    const std::uint32_t alpha = pixel[3];
    if (alpha == 0)
        return background;
    // Over an opaque colour the result is opaque: alpha · 255 + 255 · (255 − alpha) = 255².
    constexpr int BITS = 7; // more than 8 bits for each weight
    const std::uint32_t own = (alpha * 255 * 255 << BITS) / (255 * 255), behind = (255 << BITS) - own;
    Colour result{};
    for (std::size_t c = 0; c < 3; ++c) {
        const std::uint32_t sum = pixel[c] * own + background[c] * behind + (0x80U << BITS);
        result[c] = static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8 >> BITS); // divided by 255
    }
    return result;
}

} // namespace align
