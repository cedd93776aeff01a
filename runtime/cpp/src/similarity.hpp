// Scores of embeddings against embeddings.
#pragma once

#include <cstddef>

namespace align {

// Writes logits float32 (n, m): cosines of unit rows `images` (n, dim) and `texts` (m, dim), divided by `temperature`.
// Throws InputError for a row that is not finite or not of unit length, BundleError where a logit is beyond float32.
void logits(const float *images, std::size_t n, const float *texts, std::size_t m, std::size_t dim, double temperature,
            float *out);

} // namespace align
