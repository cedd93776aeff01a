#include "resample_passes.hpp"

#include <algorithm>

namespace align {

namespace {

constexpr std::int32_t HALF = 1 << (PRECISION_BITS - 1);

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> PRECISION_BITS, 0, 255));
}

void horizontal(const Weights &weights, std::size_t begin, std::size_t end, const std::uint8_t *row, std::size_t origin,
                std::uint8_t *out) {
    for (std::size_t i = begin; i < end; ++i, out += 3) {
        const auto [first, count] = weights.spans[i];
        const std::uint8_t *pixel = row + 3 * (first - origin);
        const std::int32_t *weight = &weights.values[i * weights.groups * GROUP];
        std::int32_t red = HALF, green = HALF, blue = HALF;
        for (std::uint32_t x = 0; x < count; ++x, pixel += 3) {
            red += pixel[0] * weight[x];
            green += pixel[1] * weight[x];
            blue += pixel[2] * weight[x];
        }
        out[0] = rounded(red);
        out[1] = rounded(green);
        out[2] = rounded(blue);
    }
}

void vertical(const Weights &weights, std::size_t index, const std::uint8_t *rows, std::size_t stride,
              std::size_t bytes, std::uint8_t *out) {
    constexpr std::size_t BLOCK = 64;
    const std::int32_t *weight = &weights.values[index * weights.groups * GROUP];
    for (std::size_t start = 0; start < bytes; start += BLOCK) {
        const std::size_t size = std::min(BLOCK, bytes - start);
        std::int32_t sums[BLOCK];
        std::fill_n(sums, size, HALF);
        for (std::size_t y = 0; y < weights.spans[index].count; ++y) {
            const std::uint8_t *row = rows + y * stride + start;
            for (std::size_t x = 0; x < size; ++x)
                sums[x] += row[x] * weight[y];
        }
        std::transform(sums, sums + size, out + start, rounded);
    }
}

} // namespace

const ResamplePasses PLAIN_PASSES{horizontal, vertical};

} // namespace align
