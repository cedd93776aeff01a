// Resizing: the plain and the vectorized passes give the same bytes, and a window is a part of the whole.
#include <gtest/gtest.h>

#include <random>

#include "resample.hpp"

namespace {

using namespace align;
using Bytes = std::vector<std::uint8_t>;

Bytes noise(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Bytes bytes(size);
    for (std::uint8_t &byte : bytes)
        byte = random() % 3 == 0 ? 255 : static_cast<std::uint8_t>(random());
    return bytes;
}

Bytes resized(const ImageView &image, Filter filter, ImageSize size, const Window &window,
              const ResamplePasses &passes) {
    Bytes pixels(window.width * window.height * 3);
    resample(image, filter, size, window, pixels.data(), 3 * window.width, passes);
    return pixels;
}

TEST(Resample, GivesTheSameBytesWithAndWithoutSimd) {
    std::mt19937 random(1);
    const auto side = [&](std::size_t most) { return 1 + random() % most; };
    for (unsigned i = 0; i < 300; ++i) {
        const int channels = i % 3 == 0 ? 1 : i % 3 == 1 ? 3 : 4;
        const std::size_t width = side(90), height = side(90),
                          stride = width * static_cast<std::size_t>(channels) + i % 5;
        // The last row ends with its last pixel: what is read behind it, a sanitizer finds.
        const Bytes data = noise(stride * (height - 1) + width * static_cast<std::size_t>(channels), i);
        const ImageView image{data.data(), width, height, stride, channels};
        const ImageSize size{side(90), side(90)};
        const Window whole{0, 0, size.width, size.height};
        const std::size_t left = random() % size.width, top = random() % size.height;
        const Window window{left, top, 1 + random() % (size.width - left), 1 + random() % (size.height - top)};
        for (int code = 0; code < 6; ++code) {
            const auto filter = static_cast<Filter>(code);
            const Bytes pixels = resized(image, filter, size, whole, PLAIN_PASSES);
            EXPECT_EQ(pixels, resized(image, filter, size, whole, best_passes())) << i << " " << code;
            const Bytes part = resized(image, filter, size, window, best_passes());
            for (std::size_t y = 0; y < window.height; ++y)
                ASSERT_TRUE(std::equal(&part[y * window.width * 3], &part[y * window.width * 3] + window.width * 3,
                                       &pixels[((top + y) * size.width + left) * 3]))
                    << i << " " << code;
        }
    }
}

TEST(Resample, KeepsAFlatImage) {
    const Bytes data(40 * 30 * 3, 77);
    for (int code = 0; code < 6; ++code)
        for (const std::uint8_t level :
             resized({data.data(), 40, 30, 120, 3}, static_cast<Filter>(code), {70, 9}, {0, 0, 9, 70}, best_passes()))
            ASSERT_EQ(level, 77) << code;
}

} // namespace
