// Pillow's filters, and the fixed-point weights with which source pixels make an output pixel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace align {

enum class Filter { nearest, lanczos, bilinear, bicubic, box, hamming }; // with Pillow's codes

constexpr int PRECISION_BITS = 32 - 8 - 2; // of the weights: a sum of products with uint8 fits an int32
constexpr int LOW_BITS = 11;               // a weight is high · 2^11 + low, with halves that fit an int16
constexpr std::size_t GROUP = 4;           // source pixels that are weighted together

// The weights of neighbouring output pixels along one axis.
struct Weights {
    // Of the outputs `begin` to `begin` + `count` when `source` pixels are resized to `target` with a filter that is
    // not `nearest`.
    Weights(Filter filter, std::size_t source, std::size_t target, std::size_t begin, std::size_t count);

    // An output's first source pixel, and how many it has.
    struct Span {
        std::uint32_t first, count;
    };

    std::size_t groups; // of GROUP weights for every output; unused ones are 0
    std::vector<Span> spans;
    std::vector<std::int32_t> values; // by output, groups · GROUP

    // The same in halves: by output and group, the low halves of weights 0 and 1, of 2 and 3, and then the high halves,
    // an int16 each, the first of a pair in the lower bits.
    std::vector<std::uint32_t> halves;
};

} // namespace align
