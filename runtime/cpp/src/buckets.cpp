#include "buckets.hpp"

#include <algorithm>

#include "errors.hpp"

namespace align {

Buckets Buckets::of(const Graph &graph, const ModelFacts &model) {
    Buckets buckets{{1, 8, 32}, {}};
    if (graph.tower != TEXT)
        return buckets;
    const auto longest = static_cast<std::size_t>(model.max_length);
    for (const std::size_t length : {8U, 16U, 32U, 64U})
        if (length < longest)
            buckets.lengths.push_back(length);
    buckets.lengths.push_back(longest);
    return buckets;
}

std::vector<Piece> Buckets::pieces(std::size_t count) const {
    const std::size_t largest = batches.back();
    std::vector<Piece> result;
    for (std::size_t start = 0; start < count; start += largest) {
        const std::size_t rest = std::min(count - start, largest);
        result.push_back({start, rest, *std::lower_bound(batches.begin(), batches.end(), rest)});
    }
    return result;
}

std::size_t Buckets::length(std::size_t tokens) const {
    const auto found = std::lower_bound(lengths.begin(), lengths.end(), tokens);
    if (found == lengths.end())
        throw InputError("a text of " + std::to_string(tokens) + " tokens does not fit; this model was set up for " +
                         std::to_string(lengths.back()) + " at most");
    return *found;
}

} // namespace align
