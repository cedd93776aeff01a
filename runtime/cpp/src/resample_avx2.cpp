#include "resample_passes.hpp"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

namespace align {

namespace {

// An int16 multiplication of pairs does the work: a weight of 22 bits is in two halves, and
// sum(p · w) = sum(p · high) · 2^11 + sum(p · low), exact modulo 2^32, in which the sum fits.
AVX2 __m256i joined(__m256i low, __m256i high) {
    return _mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low);
}

AVX2 void store_pixel(__m128i sum, std::uint8_t *out, std::size_t bytes) {
    const __m128i words = _mm_packs_epi32(_mm_srai_epi32(sum, PRECISION_BITS), _mm_setzero_si128());
    const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(out, &pixel, bytes);
}

AVX2 void horizontal(const Weights &weights, std::size_t begin, std::size_t end, const std::uint8_t *row,
                     std::size_t origin, std::uint8_t *out) {
    // Four RGB pixels of a row to 16-bit pairs: R0R1 G0G1 B0B1 00, R2R3 G2G3 B2B3 00.
    const __m256i pairs = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
                                           6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m256i lows = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), highs = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
    const __m128i half = _mm_set1_epi32(1 << (PRECISION_BITS - 1));
    for (std::size_t i = begin; i < end; ++i, out += 3) {
        const std::uint8_t *pixel = row + 3 * (weights.spans[i].first - origin);
        const std::uint32_t *weight = &weights.halves[i * weights.groups * GROUP];
        const std::size_t groups = (weights.spans[i].count + GROUP - 1) / GROUP;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (std::size_t group = 0; group < groups; ++group, pixel += 3 * GROUP, weight += GROUP) {
            const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i *>(pixel));
            const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(weight));
            const __m256i values = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(four), pairs);
            const __m256i both = _mm256_castsi128_si256(halves);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(values, _mm256_permutevar8x32_epi32(both, lows)));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(values, _mm256_permutevar8x32_epi32(both, highs)));
        }
        const __m256i sum = joined(low, high);
        const __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        store_pixel(_mm_add_epi32(total, half), out, i + 1 < end ? 4 : 3); // the fourth byte is the next pixel's first
    }
}

// The sums of two rows' bytes, 16 from `above` on, times the halves of their weights.
AVX2 void add_rows(__m128i above, __m128i below, __m256i low_weights, __m256i high_weights, __m256i *low,
                   __m256i *high) {
    const __m256i left = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(above, below));
    const __m256i right = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(above, below));
    low[0] = _mm256_add_epi32(low[0], _mm256_madd_epi16(left, low_weights));
    low[1] = _mm256_add_epi32(low[1], _mm256_madd_epi16(right, low_weights));
    high[0] = _mm256_add_epi32(high[0], _mm256_madd_epi16(left, high_weights));
    high[1] = _mm256_add_epi32(high[1], _mm256_madd_epi16(right, high_weights));
}

AVX2 void vertical(const Weights &weights, std::size_t index, const std::uint8_t *rows, std::size_t stride,
                   std::size_t bytes, std::uint8_t *out) {
    constexpr std::size_t BLOCK = 16;
    if (bytes < BLOCK)
        return PLAIN_PASSES.vertical(weights, index, rows, stride, bytes, out);
    const std::uint32_t *const halves = &weights.halves[index * weights.groups * GROUP];
    const std::size_t count = weights.spans[index].count;
    const __m256i half = _mm256_set1_epi32(1 << (PRECISION_BITS - 1));
    for (std::size_t block = 0; block < bytes; block += BLOCK) {
        const std::size_t start = std::min(block, bytes - BLOCK); // the last block overlaps the one before
        __m256i low[2] = {half, half}, high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (std::size_t y = 0; y < count; y += 2) {
            const std::uint8_t *row = rows + y * stride + start;
            const std::uint8_t *next = y + 1 < count ? row + stride : row; // its weight is 0
            const std::uint32_t *weight = halves + y / GROUP * GROUP + y / 2 % 2;
            add_rows(_mm_loadu_si128(reinterpret_cast<const __m128i *>(row)),
                     _mm_loadu_si128(reinterpret_cast<const __m128i *>(next)),
                     _mm256_set1_epi32(static_cast<int>(weight[0])), _mm256_set1_epi32(static_cast<int>(weight[2])),
                     low, high);
        }
        const __m256i left = _mm256_srai_epi32(joined(low[0], high[0]), PRECISION_BITS);
        const __m256i right = _mm256_srai_epi32(joined(low[1], high[1]), PRECISION_BITS);
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(left, right), 0xd8); // in order
        const __m128i sixteen = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + start), sixteen);
    }
}

constexpr ResamplePasses AVX2_PASSES{horizontal, vertical};

} // namespace

const ResamplePasses &best_passes() {
    static const bool available = __builtin_cpu_supports("avx2");
    return available ? AVX2_PASSES : PLAIN_PASSES;
}

} // namespace align

#else

namespace align {

const ResamplePasses &best_passes() {
    return PLAIN_PASSES;
}

} // namespace align

#endif
