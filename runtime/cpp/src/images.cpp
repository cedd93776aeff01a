#include "images.hpp"

#include <algorithm>
#include <string>

#include "errors.hpp"
#include "resample.hpp"

namespace align {

namespace {

constexpr std::size_t MAX_SIDE = 65535;        // pixels; thinner images exist only to make the resize expensive
constexpr std::size_t MAX_BETWEEN = 178956970; // pixels of an image between the two passes of the resize
constexpr std::size_t MAX_STRIDE = std::size_t{1} << 40;

std::string shown(std::size_t width, std::size_t height) {
    return std::to_string(width) + " × " + std::to_string(height);
}

void check(const ImageView &image, const Limits &limits) {
    if (image.channels != 1 && image.channels != 3 && image.channels != 4)
        throw InputError("the image has " + std::to_string(image.channels) + " channels; expected 1, 3 or 4");
    check_size(image.width, image.height, limits);
    if (image.data == nullptr)
        throw InputError("the image has no data (NULL)");
    const std::size_t least = image.width * static_cast<std::size_t>(image.channels);
    if (image.stride < least || image.stride > MAX_STRIDE)
        throw InputError("the image has a stride of " + std::to_string(image.stride) + " bytes; expected at least " +
                         std::to_string(least) + ", the bytes of a row");
}

// The size that an image is resized to.
ImageSize target(const Preprocessing &config, const ImageView &image) {
    if (!config.size)
        return {image.height, image.width};
    const ImageSize size = config.size->target({image.height, image.width});
    const bool large = size.width > MAX_BETWEEN || size.height > MAX_BETWEEN ||
                       size.width * std::max(size.height, image.height) > MAX_BETWEEN;
    if (size.width == 0 || size.height == 0 || large)
        throw InputError("the image is " + shown(image.width, image.height) + " and would be resized to " +
                         shown(size.width, size.height) + "; expected sides of at least 1 and at most " +
                         std::to_string(MAX_BETWEEN) + " pixels in between; crop the image");
    return size;
}

// The places of `crop` pixels in the middle of `size`: where they begin in it, and in the result, and how many there
// are.
struct Overlap {
    std::size_t source, result, count;
};

Overlap overlap(std::size_t size, std::size_t crop) {
    if (crop <= size)
        return {(size - crop) / 2, 0, crop};
    return {0, (crop - size + 1) / 2, size}; // Python's // of a negative number rounds down
}

} // namespace

void check_size(std::size_t width, std::size_t height, const Limits &limits) {
    if (width == 0 || height == 0)
        throw InputError("the image has no pixels (" + shown(width, height) + ")");
    if (width > MAX_SIDE || height > MAX_SIDE)
        throw InputError("the image has " + shown(width, height) + " pixels; expected sides of at most " +
                         std::to_string(MAX_SIDE) + "; crop it");
    if (width * height > limits.max_pixels)
        throw InputError("the image has " + shown(width, height) + " pixels; expected at most " +
                         std::to_string(limits.max_pixels) + "; scale it down");
}

void preprocess(const Preprocessing &config, const ImageView &image, std::uint8_t *pixels, const Background &background,
                const Limits &limits) {
    check(image, limits);
    const ImageSize size = target(config, image), result = config.pixels_size();
    const Overlap rows = overlap(size.height, result.height), columns = overlap(size.width, result.width);
    if (rows.count < result.height || columns.count < result.width)
        std::fill_n(pixels, config.pixels_bytes(), std::uint8_t{0});
    const std::size_t stride = 3 * result.width;
    std::uint8_t *const out = pixels + rows.result * stride + 3 * columns.result;
    const Window window{columns.source, rows.source, columns.count, rows.count};
    if (image.channels == 4 && background) {
        const std::vector<std::uint8_t> rgb = composite(image, *background);
        resample({rgb.data(), image.width, image.height, 3 * image.width, 3}, config.resample, size, window, out,
                 stride);
    } else {
        resample(image, config.resample, size, window, out, stride);
    }
}

} // namespace align
