#include "png_decoder.hpp"

#include <algorithm>
#include <vector>

#include "errors.hpp"
#include "png_rows.hpp"

namespace align {

namespace {

// Where the pixels of a pass lie in the image.
struct Pass {
    std::size_t left, top, right_step, down_step;
};

constexpr Pass WHOLE[] = {{0, 0, 1, 1}};
constexpr Pass ADAM7[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                          {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

class Writer {
public:
    Writer(const PngImage &png, const Background &background, DecodedImage &image)
        : pixels_(png), background_(background), image_(image), rgba_(4 * png.width),
          is_rgb_(png.bits == 8 && png.colour == 2 && !background) {}

    void write(const std::uint8_t *row, std::size_t count, const Pass &pass, std::size_t y) {
        std::uint8_t *out = image_.row(y) + 3 * pass.left;
        if (is_rgb_ && pass.right_step == 1) {
            std::copy_n(row, 3 * count, out);
            return;
        }
        pixels_.convert(row, count, rgba_.data());
        for (std::size_t i = 0; i < count; ++i, out += 3 * pass.right_step) {
            const std::uint8_t *pixel = &rgba_[4 * i];
            if (background_)
                std::copy_n(composite_pixel(pixel, *background_).begin(), 3, out);
            else
                std::copy_n(pixel, 3, out);
        }
    }

private:
    PngPixels pixels_;
    const Background &background_;
    DecodedImage &image_;
    std::vector<std::uint8_t> rgba_;
    bool is_rgb_;
};

} // namespace

DecodedImage decode_png(const PngImage &png, const Background &background) {
    if (background && png.colour == 3 && png.transparency.value_or(std::string_view()).size() > 256)
        throw InputError("the image cannot be decoded as PNG: it has transparency for more than 256 colours");
    DecodedImage image{png.width, png.height, 3, nullptr};
    PngRows rows(png);
    image.data.reset(new std::uint8_t[image.height * image.stride()]()); // black where the stream ends early
    Writer writer(png, background, image);
    const auto *const passes = png.interlaced ? ADAM7 : WHOLE;
    for (std::size_t i = 0; i < (png.interlaced ? std::size(ADAM7) : 1); ++i) {
        const Pass &pass = passes[i];
        if (pass.left >= image.width || pass.top >= image.height)
            continue;
        const std::size_t count = (image.width - pass.left + pass.right_step - 1) / pass.right_step;
        rows.begin_pass();
        for (std::size_t y = pass.top; y < image.height; y += pass.down_step) {
            writer.write(rows.next(count), count, pass, y);
            if (rows.ended())
                return image;
        }
    }
    return image;
}

} // namespace align
