// Buckets: the few shapes that a GPU runs. A CUDA graph has one shape, so inputs are padded to the next bucket.
#pragma once

#include <cstddef>
#include <vector>

#include "graph_entry.hpp"
#include "manifest.hpp"

namespace align {

// Rows of an input that run together in a bucket of `batch` rows.
struct Piece {
    std::size_t start, count, batch;
};

// Batch sizes, and lengths of texts in tokens (none for images), both in ascending order.
struct Buckets {
    std::vector<std::size_t> batches, lengths;

    static Buckets of(const Graph &graph, const ModelFacts &model);

    // Splits `count` rows into full batches of the largest size, and the smallest batch that holds the rest: a tower of
    // hundreds of small kernels is bound by their launches and takes about as long for one row as for eight.
    std::vector<Piece> pieces(std::size_t count) const;

    // The length that texts of `tokens` tokens are padded to. Throws InputError where that exceeds every length.
    std::size_t length(std::size_t tokens) const;
};

} // namespace align
