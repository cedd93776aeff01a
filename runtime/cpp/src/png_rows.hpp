// The rows of a PNG image: inflated, without their filters, and as pixels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <zlib.h>

#include "png_container.hpp"

namespace align {

// Inflates rows one after the other, and takes away their filters.
class PngRows {
public:
    explicit PngRows(const PngImage &png);
    ~PngRows() { inflateEnd(&stream_); }
    PngRows(const PngRows &) = delete;
    PngRows &operator=(const PngRows &) = delete;

    // The bytes of a row of `pixels` pixels, valid until the next call. Throws InputError if it cannot be decoded.
    const std::uint8_t *next(std::size_t pixels);

    // Rows of another pass of an interlaced image follow; the first has no row above it.
    void begin_pass();

    // Whether the stream has ended with the last row: what is missing stays black.
    bool ended() const { return ended_; }

private:
    bool feed();

    const PngImage &png_;
    std::size_t part_ = 0, offset_ = 0; // of what has been fed
    std::size_t pixel_bits_;
    z_stream stream_{};
    bool ended_ = false;
    std::vector<std::uint8_t> row_, above_; // with the filter's byte before them
};

// Bytes of rows to RGBA.
class PngPixels {
public:
    explicit PngPixels(const PngImage &png);

    // Bits of a pixel.
    static std::size_t bits(const PngImage &png);

    void convert(const std::uint8_t *row, std::size_t count, std::uint8_t *rgba) const;

private:
    using Rgba = std::array<std::uint8_t, 4>;

    void fill_levels(const PngImage &png);

    int bits_, colour_;
    std::array<Rgba, 256> levels_{}; // of samples of at most 8 bits, grey or of a palette
    bool has_key_ = false;           // a colour that is transparent
    Rgba key_{};
};

} // namespace align
