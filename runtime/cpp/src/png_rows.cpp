#include "png_rows.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <string>

#include "errors.hpp"

namespace align {

namespace {

constexpr std::size_t FEED = 65536; // bytes at a time, as Pillow

[[noreturn]] void refuse(const char *reason) {
    throw InputError(std::string("the image cannot be decoded as PNG: ") + reason);
}

std::uint8_t paeth(int left, int above, int corner) {
    const int a = std::abs(above - corner), b = std::abs(left - corner), c = std::abs(left + above - 2 * corner);
    return static_cast<std::uint8_t>(a <= b && a <= c ? left : b <= c ? above : corner);
}

// Takes the filter `kind` away from `row`; `step` is the distance to the same byte of the pixel on the left.
bool unfilter(int kind, std::uint8_t *row, const std::uint8_t *above, std::size_t bytes, std::size_t step) {
    const auto add = [row](std::size_t i, int value) { row[i] = static_cast<std::uint8_t>(row[i] + value); };
    const std::size_t first = std::min(step, bytes); // bytes without a pixel on the left
    switch (kind) {
    case 0:
        return true;
    case 1:
        for (std::size_t i = step; i < bytes; ++i)
            add(i, row[i - step]);
        return true;
    case 2:
        for (std::size_t i = 0; i < bytes; ++i)
            add(i, above[i]);
        return true;
    case 3:
        for (std::size_t i = 0; i < first; ++i)
            add(i, above[i] / 2);
        for (std::size_t i = step; i < bytes; ++i)
            add(i, (row[i - step] + above[i]) / 2);
        return true;
    case 4:
        for (std::size_t i = 0; i < first; ++i)
            add(i, above[i]);
        for (std::size_t i = step; i < bytes; ++i)
            add(i, paeth(row[i - step], above[i], above[i - step]));
        return true;
    default:
        return false;
    }
}

int channels(int colour) {
    return colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1;
}

bool is_known(int bits, int colour) {
    const bool eight = bits == 8 || bits == 16, less = bits == 1 || bits == 2 || bits == 4;
    return colour == 0   ? eight || less
           : colour == 3 ? bits == 8 || less
                         : (colour == 2 || colour == 4 || colour == 6) && eight;
}

} // namespace

PngRows::PngRows(const PngImage &png) : png_(png), pixel_bits_(PngPixels::bits(png)) {
    const std::size_t bytes = (png.width * pixel_bits_ + 7) / 8 + 1;
    row_.resize(bytes);
    above_.resize(bytes);
    if (inflateInit(&stream_) != Z_OK)
        throw std::bad_alloc();
}

bool PngRows::feed() {
    while (part_ < png_.pixels.size() && offset_ == png_.pixels[part_].size()) {
        ++part_;
        offset_ = 0;
    }
    if (part_ == png_.pixels.size())
        return false;
    const std::string_view bytes = png_.pixels[part_].substr(offset_, FEED);
    stream_.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    offset_ += bytes.size();
    return true;
}

const std::uint8_t *PngRows::next(std::size_t pixels) {
    row_.swap(above_);
    const std::size_t bytes = (pixels * pixel_bits_ + 7) / 8;
    stream_.next_out = row_.data();
    stream_.avail_out = static_cast<uInt>(bytes + 1);
    while (stream_.avail_out > 0) {
        if (ended_ || (stream_.avail_in == 0 && !feed()))
            refuse("the file is truncated");
        const int result = inflate(&stream_, Z_NO_FLUSH);
        if (result == Z_MEM_ERROR)
            throw std::bad_alloc();
        if (result != Z_OK && result != Z_STREAM_END) // also one that needs a dictionary
            refuse("its compressed pixels are broken");
        ended_ = result == Z_STREAM_END;
    }
    if (!unfilter(row_[0], row_.data() + 1, above_.data() + 1, bytes, (pixel_bits_ + 7) / 8))
        refuse("a row has an unknown filter");
    return row_.data() + 1;
}

void PngRows::begin_pass() {
    std::fill(row_.begin(), row_.end(), std::uint8_t{0});
}

std::size_t PngPixels::bits(const PngImage &png) {
    if (!is_known(png.bits, png.colour))
        refuse("its colour type is unknown");
    return static_cast<std::size_t>(png.bits * channels(png.colour));
}

PngPixels::PngPixels(const PngImage &png) : bits_(png.bits), colour_(png.colour) {
    if (png.transparency && (colour_ == 0 || colour_ == 2)) {
        has_key_ = true;
        const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>((*png.transparency)[at]); };
        // Pillow compares the lower byte with 8-bit levels
        key_ = colour_ == 2 ? Rgba{byte(1), byte(3), byte(5), 255} : Rgba{byte(1), byte(1), byte(1), 255};
        if (bits_ == 1) {
            const std::uint8_t level = byte(0) != 0 || byte(1) != 0 ? 255 : 0;
            key_ = {level, level, level, 255};
        }
    }
    if (bits_ <= 8 && (colour_ == 0 || colour_ == 3))
        fill_levels(png);
}

void PngPixels::fill_levels(const PngImage &png) {
    if (colour_ == 0) {
        const int most = (1 << bits_) - 1;
        for (int i = 0; i <= most; ++i) {
            const auto level = static_cast<std::uint8_t>(i * 255 / most);
            levels_[static_cast<std::size_t>(i)] = {level, level, level, 255};
            if (has_key_ && levels_[static_cast<std::size_t>(i)] == key_)
                levels_[static_cast<std::size_t>(i)][3] = 0;
        }
        return;
    }
    const std::string_view palette = png.palette.value_or(std::string_view());
    const std::string_view alphas = png.transparency.value_or(std::string_view());
    if (palette.size() / 3 > levels_.size())
        refuse("its palette has more than 256 colours");
    for (std::size_t i = 0; i < levels_.size(); ++i) {
        if (i < palette.size() / 3)
            for (std::size_t c = 0; c < 3; ++c)
                levels_[i][c] = static_cast<std::uint8_t>(palette[3 * i + c]);
        levels_[i][3] = i < alphas.size() ? static_cast<std::uint8_t>(alphas[i]) : 255;
    }
}

void PngPixels::convert(const std::uint8_t *row, std::size_t count, std::uint8_t *rgba) const {
    const std::size_t step = bits_ == 16 ? 2 : 1; // of 16 bits the upper byte counts
    for (std::size_t i = 0; i < count; ++i, rgba += 4) {
        Rgba pixel{};
        if (bits_ <= 8 && (colour_ == 0 || colour_ == 3)) {
            const std::size_t bit = i * static_cast<std::size_t>(bits_);
            const int shift = 8 - bits_ - static_cast<int>(bit % 8);
            pixel = levels_[static_cast<std::size_t>(row[bit / 8] >> shift & ((1 << bits_) - 1))];
        } else if (colour_ == 0) { // 16 bits: levels that do not fit are white
            const std::uint8_t level = row[2 * i] != 0 ? 255 : row[2 * i + 1];
            pixel = {level, level, level, 255};
        } else if (colour_ == 4) {
            const std::uint8_t level = row[2 * i * step];
            pixel = {level, level, level, row[(2 * i + 1) * step]};
        } else {
            const std::size_t samples = colour_ == 6 ? 4 : 3;
            pixel[3] = 255;
            for (std::size_t c = 0; c < samples; ++c)
                pixel[c] = row[(samples * i + c) * step];
        }
        if (has_key_ && pixel == key_)
            pixel[3] = 0;
        std::copy(pixel.begin(), pixel.end(), rgba);
    }
}

} // namespace align
