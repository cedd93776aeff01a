#include "scheduling.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace align {

namespace {

std::vector<std::size_t> by_length(const std::vector<std::size_t> &lengths) {
    std::vector<std::size_t> order(lengths.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] < lengths[b]; });
    return order;
}

} // namespace

Batches length_batches(const std::vector<std::size_t> &lengths, std::size_t size) {
    const std::vector<std::size_t> order = by_length(lengths);
    Batches batches;
    for (std::size_t start = 0; start < order.size(); start += size) {
        const std::size_t end = std::min(start + size, order.size());
        batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(start),
                             order.begin() + static_cast<std::ptrdiff_t>(end));
    }
    return batches;
}

Batches token_batches(const std::vector<std::size_t> &lengths, std::size_t size, std::size_t streams) {
    const std::vector<std::size_t> order = by_length(lengths);
    const std::size_t count = streams * ((order.size() + size * streams - 1) / (size * streams));
    std::vector<std::uint64_t> tokens; // up to and with each text
    for (const std::size_t index : order)
        tokens.push_back((tokens.empty() ? 0 : tokens.back()) + lengths[index]);
    Batches batches;
    std::size_t start = 0;
    for (std::size_t part = 1; part <= count; ++part) {
        // All texts whose tokens end at or before this share of the total.
        const auto last =
            std::upper_bound(tokens.begin(), tokens.end(), part,
                             [&](std::size_t share, std::uint64_t sum) { return tokens.back() * share < sum * count; });
        const auto end = static_cast<std::size_t>(last - tokens.begin());
        if (start < end)
            batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(start),
                                 order.begin() + static_cast<std::ptrdiff_t>(end));
        start = std::max(start, end);
    }
    return batches;
}

} // namespace align
