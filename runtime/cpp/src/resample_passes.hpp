// The inner loops of resizing: one row in x, one row in y, in plain C++ and with AVX2, which give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "resample_filters.hpp"

namespace align {

constexpr std::size_t PADDING = 32; // bytes that a pass may read, but does not use, behind a row

struct ResamplePasses {
    // Writes outputs `begin` to `end` of a row: RGB pixels of `row`, in which source pixel `origin` comes first,
    // weighted to `out`. PADDING bytes behind the last source pixel are readable.
    void (*horizontal)(const Weights &weights, std::size_t begin, std::size_t end, const std::uint8_t *row,
                       std::size_t origin, std::uint8_t *out);

    // Writes `bytes` bytes, each the weighted sum of those above each other in the rows from `rows` on, `stride` apart,
    // of output `index`.
    void (*vertical)(const Weights &weights, std::size_t index, const std::uint8_t *rows, std::size_t stride,
                     std::size_t bytes, std::uint8_t *out);
};

// Those that any processor runs.
extern const ResamplePasses PLAIN_PASSES;

// The fastest that this processor runs.
const ResamplePasses &best_passes();

} // namespace align
