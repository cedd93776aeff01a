// Texts to embeddings: tokenized in windows, sorted by length, run in batches, returned in the order of the input.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer.hpp"
#include "tower.hpp"
#include "workers.hpp"

namespace align {

// The text tower with its tokenizer, which any number of threads may share.
class TextEmbedder {
public:
    TextEmbedder(Tower tower, Tokenizer tokenizer, std::int64_t pad_id, Workers &tokenizers, Workers &workers)
        : tower_(std::move(tower)), tokenizer_(std::move(tokenizer)), pad_id_(pad_id), tokenizers_(tokenizers),
          workers_(workers) {}

    // Writes the embeddings of `texts`, UTF-8, to `out`, float32 (n, dim). Throws InputError with the index of a text
    // that is not valid, and as Tower::run.
    void embed(const std::vector<std::string_view> &texts, float *out) const;

    // The ids of one text, from [CLS] to [SEP], truncated. Throws InputError.
    std::vector<std::int64_t> encode(std::string_view text) const;

private:
    using Rows = std::vector<std::vector<std::int64_t>>;

    Rows encode_all(const std::string_view *texts, std::size_t count, std::size_t first_index) const;
    void embed_rows(const Rows &rows, float *out) const;
    void run(bool stream, const Rows &rows, const std::vector<std::size_t> &batch, float *out) const;

    Tower tower_;
    Tokenizer tokenizer_;
    std::int64_t pad_id_;
    Workers &tokenizers_, &workers_;
};

} // namespace align
