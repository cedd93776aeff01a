// Scheduling: how texts are split into batches.
#pragma once

#include <cstddef>
#include <vector>

namespace align {

using Batches = std::vector<std::vector<std::size_t>>; // indices of texts

// Indices of texts in batches of at most `size`, sorted by length: a batch is padded to its longest text, and padding
// costs as much as text.
Batches length_batches(const std::vector<std::size_t> &lengths, std::size_t size);

// Indices of texts, sorted by length, in a multiple of `streams` batches with about the same number of tokens, so that
// parallel streams finish at about the same time. A batch has at most `size` texts on average.
Batches token_batches(const std::vector<std::size_t> &lengths, std::size_t size, std::size_t streams);

} // namespace align
