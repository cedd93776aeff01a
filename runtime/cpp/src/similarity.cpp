#include "similarity.hpp"

#include <cmath>
#include <string>

#include "errors.hpp"

namespace align {

namespace {

constexpr double LENGTH_TOLERANCE = 1e-2; // embeddings that were stored in FP16 or in 8 bits are a little off

double dot(const float *left, const float *right, std::size_t dim) {
    double sum = 0;
    for (std::size_t i = 0; i < dim; ++i)
        sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
    return sum;
}

void check_rows(const std::string &name, const float *rows, std::size_t count, std::size_t dim) {
    for (std::size_t row = 0; row < count; ++row) {
        const double length = std::sqrt(dot(rows + row * dim, rows + row * dim, dim));
        if (!std::isfinite(length))
            throw InputError(name + " contains NaN or infinite values in this row; pass finite embeddings", row);
        if (std::fabs(length - 1) > LENGTH_TOLERANCE)
            throw InputError(name + " has a row of length " + std::to_string(length) +
                                 "; expected unit length, divide each row by its length",
                             row);
    }
}

} // namespace

void logits(const float *images, std::size_t n, const float *texts, std::size_t m, std::size_t dim, double temperature,
            float *out) {
    check_rows("images", images, n, dim);
    check_rows("texts", texts, m, dim);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < m; ++j) {
            const double cosine = static_cast<double>(static_cast<float>(dot(images + i * dim, texts + j * dim, dim)));
            const auto logit = static_cast<float>(cosine / temperature);
            if (!std::isfinite(logit))
                throw BundleError("the temperature " + std::to_string(temperature) +
                                  " of this bundle gives logits beyond float32; export the checkpoint again");
            out[i * m + j] = logit;
        }
}

} // namespace align
