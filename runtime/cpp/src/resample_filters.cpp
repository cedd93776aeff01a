#include "resample_filters.hpp"

#include <algorithm>
#include <cmath>

namespace align {

namespace {

constexpr double PI = 3.14159265358979323846;

double sinc(double x) {
    return x == 0 ? 1 : std::sin(x * PI) / (x * PI);
}

double box(double x) {
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

double bilinear(double x) {
    x = std::abs(x);
    return x < 1 ? 1 - x : 0;
}

double hamming(double x) {
    x = std::abs(x);
    if (x == 0)
        return 1;
    if (x >= 1)
        return 0;
    x *= PI;
    return std::sin(x) / x * (0.54F + 0.46F * std::cos(x)); // Pillow's constants are float32
}

double bicubic(double x) { // Keys' kernel
    constexpr double A = -0.5;
    x = std::abs(x);
    if (x < 1)
        return ((A + 2) * x - (A + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * A : 0;
}

double lanczos(double x) {
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

struct Kernel {
    double (*value)(double x);
    double support;
};

Kernel kernel(Filter filter) {
    switch (filter) {
    case Filter::lanczos:
        return {lanczos, 3};
    case Filter::bicubic:
        return {bicubic, 2};
    case Filter::box:
        return {box, 0.5};
    case Filter::hamming:
        return {hamming, 1};
    default:
        return {bilinear, 1};
    }
}

std::int32_t fixed_point(double weight) {
    const double scaled = weight * (1 << PRECISION_BITS);
    return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

std::uint32_t pair(std::int32_t first, std::int32_t second) {
    return (static_cast<std::uint32_t>(first) & 0xffffU) | static_cast<std::uint32_t>(second) << 16;
}

} // namespace

Weights::Weights(Filter filter, std::size_t source, std::size_t target, std::size_t begin, std::size_t count) {
    const Kernel shape = kernel(filter);
    const double scale = static_cast<double>(source) / static_cast<double>(target), stretch = std::max(scale, 1.0);
    const double support = shape.support * stretch, inverse = 1 / stretch;
    const std::size_t most = 2 * static_cast<std::size_t>(std::ceil(support)) + 1;
    groups = (std::min(most, source) + GROUP - 1) / GROUP;
    spans.resize(count);
    values.resize(count * groups * GROUP);
    halves.resize(count * groups * GROUP);
    std::vector<double> exact(groups * GROUP);
    for (std::size_t i = 0; i < count; ++i) {
        const double center = (static_cast<double>(begin + i) + 0.5) * scale;
        const double low = std::max(0.0, center - support + 0.5);
        const auto first = static_cast<std::uint32_t>(low);
        const auto end = static_cast<std::uint32_t>(std::min(center + support + 0.5, static_cast<double>(source)));
        double sum = 0;
        for (std::uint32_t x = first; x < end; ++x) {
            exact[x - first] = shape.value((static_cast<double>(x) - center + 0.5) * inverse);
            sum += exact[x - first];
        }
        spans[i] = {first, end - first};
        std::int32_t *const row = &values[i * groups * GROUP];
        for (std::uint32_t x = 0; x < end - first; ++x)
            row[x] = fixed_point(sum == 0 ? exact[x] : exact[x] / sum);
        for (std::size_t x = 0; x < groups * GROUP; x += GROUP) {
            const auto lower = [&](std::size_t at) { return row[x + at] & ((1 << LOW_BITS) - 1); };
            const auto upper = [&](std::size_t at) { return row[x + at] >> LOW_BITS; };
            std::uint32_t *const half = &halves[i * groups * GROUP + x];
            half[0] = pair(lower(0), lower(1));
            half[1] = pair(lower(2), lower(3));
            half[2] = pair(upper(0), upper(1));
            half[3] = pair(upper(2), upper(3));
        }
    }
}

} // namespace align
