#include "resample.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

namespace align {

namespace {

// `count` pixels of `image` from (x, y) on, as RGB.
void copy_rgb(const ImageView &image, std::size_t x, std::size_t y, std::size_t count, std::uint8_t *out) {
    const auto channels = static_cast<std::size_t>(image.channels);
    const std::uint8_t *pixel = image.row(y) + x * channels;
    if (channels == 3) {
        std::memcpy(out, pixel, 3 * count);
        return;
    }
    const std::size_t green = channels == 1 ? 0 : 1;
    for (const std::uint8_t *end = pixel + count * channels; pixel < end; pixel += channels, out += 3) {
        out[0] = pixel[0];
        out[1] = pixel[green];
        out[2] = pixel[2 * green];
    }
}

// By output of a window, the nearest source pixel. The last ones are missing where rounding errors add up to beyond it.
std::vector<std::size_t> nearest(std::size_t source, std::size_t target, std::size_t begin, std::size_t count) {
    const double step = static_cast<double>(source) / static_cast<double>(target);
    double at = step * 0.5;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < begin + count && at < static_cast<double>(source);
         ++i, at += step) // a sum, as in Pillow
        if (i >= begin)
            places.push_back(static_cast<std::size_t>(at));
    return places;
}

// The first three bytes of `first` and of `second`; writes eight. In one store: those that overlap wait for each other.
void copy_pair(const std::uint8_t *first, const std::uint8_t *second, std::uint8_t *out) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pixels are joined by shifts");
    std::uint32_t a, b;
    std::memcpy(&a, first, 4);
    std::memcpy(&b, second, 4);
    const std::uint64_t pair = (a & 0xffffffU) | (std::uint64_t{b} << 24U);
    std::memcpy(out, &pair, 8);
}

void resample_nearest(const ImageView &image, ImageSize size, const Window &window, std::uint8_t *pixels,
                      std::size_t stride) {
    const std::vector<std::size_t> columns = nearest(image.width, size.width, window.left, window.width);
    const std::vector<std::size_t> rows = nearest(image.height, size.height, window.top, window.height);
    const std::size_t channels = static_cast<std::size_t>(image.channels);
    std::size_t wide = 0; // outputs that may be read with the byte behind them
    while (channels > 1 && wide + 1 < columns.size() && columns[wide] + 1 < image.width)
        ++wide;
    std::vector<std::uint32_t> offsets(wide); // in bytes of a row
    for (std::size_t i = 0; i < wide; ++i)
        offsets[i] = static_cast<std::uint32_t>(columns[i] * channels);
    for (std::size_t y = 0; y < window.height; ++y) {
        std::uint8_t *out = pixels + y * stride, *const end = out + 3 * window.width;
        if (y < rows.size()) {
            const std::uint8_t *const row = image.row(rows[y]);
            const std::uint32_t *const offset = offsets.data(); // bytes that are written might be those of `offsets`
            std::size_t i = 0;
            for (; i + 2 < wide; i += 2, out += 6)
                copy_pair(row + offset[i], row + offset[i + 1], out);
            for (; i < columns.size(); ++i, out += 3)
                copy_rgb(image, columns[i], rows[y], 1, out);
        }
        std::fill(out, end, std::uint8_t{0});
    }
}

// A window's rows of `image` resized in x, one after the other.
class HorizontalPass {
public:
    HorizontalPass(const ImageView &image, Filter filter, std::size_t target, const Window &window,
                   const ResamplePasses &passes)
        : image_(image), passes_(passes), left_(window.left), is_same_(target == image.width),
          weights_(filter, image.width, target, window.left, is_same_ ? 0 : window.width), width_(window.width) {
        if (is_same_)
            return;
        const auto groups_end = [&](std::size_t i) { // of the pixels that are read for an output
            return weights_.spans[i].first + (weights_.spans[i].count + GROUP - 1) / GROUP * GROUP + 2;
        };
        if (image.channels == 3)
            while (direct_ < window.width && groups_end(direct_) <= image.width)
                ++direct_;
        origin_ = direct_ < window.width ? weights_.spans[direct_].first : image.width;
        rest_.resize(3 * (image.width - origin_) + PADDING);
    }

    void row(std::size_t y, std::uint8_t *out) {
        if (is_same_)
            return copy_rgb(image_, left_, y, width_, out);
        passes_.horizontal(weights_, 0, direct_, image_.row(y), 0, out);
        if (direct_ < weights_.spans.size()) { // reading behind the row's end, which may be the image's
            copy_rgb(image_, origin_, y, image_.width - origin_, rest_.data());
            passes_.horizontal(weights_, direct_, weights_.spans.size(), rest_.data(), origin_, out + 3 * direct_);
        }
    }

private:
    const ImageView &image_;
    const ResamplePasses &passes_;
    std::size_t left_;
    bool is_same_; // nothing to resize
    Weights weights_;
    std::size_t width_;
    std::size_t direct_ = 0,
                origin_ = 0;         // outputs that are made of the image itself; the first source pixel of the others
    std::vector<std::uint8_t> rest_; // the row from there on
};

// One pass after the other in the order of Pillow 13: that which leaves less to do.
bool begins_with_columns(const ImageView &image, ImageSize size) {
    const auto fewer = [](std::size_t from, std::size_t to) { return from > to ? from - to : 0; };
    return fewer(image.height, size.height) > 2 * fewer(image.width, size.width);
}

} // namespace

void resample(const ImageView &image, Filter filter, ImageSize size, const Window &window, std::uint8_t *pixels,
              std::size_t stride, const ResamplePasses &passes) {
    if (size.width == image.width && size.height == image.height) {
        for (std::size_t y = 0; y < window.height; ++y)
            copy_rgb(image, window.left, window.top + y, window.width, pixels + y * stride);
    } else if (filter == Filter::nearest) {
        resample_nearest(image, size, window, pixels, stride);
    } else if (size.height == image.height) {
        HorizontalPass pass(image, filter, size.width, window, passes);
        for (std::size_t y = 0; y < window.height; ++y)
            pass.row(window.top + y, pixels + y * stride);
    } else if (begins_with_columns(image, size)) {
        const Weights rows(filter, image.height, size.height, window.top, window.height);
        const std::size_t bytes = image.width * static_cast<std::size_t>(image.channels);
        const std::unique_ptr<std::uint8_t[]> between(new std::uint8_t[window.height * bytes]);
        for (std::size_t y = 0; y < window.height; ++y)
            passes.vertical(rows, y, image.row(rows.spans[y].first), image.stride, bytes, &between[y * bytes]);
        const ImageView columns{between.get(), image.width, window.height, bytes, image.channels};
        HorizontalPass pass(columns, filter, size.width, window, passes);
        for (std::size_t y = 0; y < window.height; ++y)
            pass.row(y, pixels + y * stride);
    } else {
        const Weights rows(filter, image.height, size.height, window.top, window.height);
        const std::size_t first = rows.spans.front().first, bytes = 3 * window.width;
        const std::size_t end = rows.spans.back().first + rows.spans.back().count;
        const std::unique_ptr<std::uint8_t[]> between(new std::uint8_t[(end - first) * bytes]);
        HorizontalPass pass(image, filter, size.width, window, passes);
        for (std::size_t y = first; y < end; ++y)
            pass.row(y, &between[(y - first) * bytes]);
        for (std::size_t y = 0; y < window.height; ++y)
            passes.vertical(rows, y, &between[(rows.spans[y].first - first) * bytes], bytes, bytes,
                            pixels + y * stride);
    }
}

} // namespace align
