// Texts to token ids, equal to the `tokenizers` package's to the id, from the bundle's tokenizer.json.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "added_tokens.hpp"
#include "bert_normalizer.hpp"
#include "wordpiece.hpp"

namespace align {

constexpr std::size_t MAX_TOKENIZER_BYTES = 32 << 20; // 30,000 tokens take 0.7 MB

// A BERT WordPiece tokenizer with a fixed maximum length. It is immutable: any number of threads may share it.
class Tokenizer {
public:
    // Reads the content of a tokenizer.json as align-export writes it. `max_length` counts the ids of a text, [CLS] and
    // [SEP] included. Throws BundleError for another file, ConfigurationError for a `max_length` or `pad_id` that is
    // out of range.
    static Tokenizer from_json(std::string_view bytes, std::int32_t max_length, std::int64_t pad_id);

    // The ids of `utf8`, from [CLS] to [SEP], truncated to `max_length` and not padded. Throws InputError with the
    // offset of the first byte that is not UTF-8.
    std::vector<std::int64_t> encode(std::string_view utf8) const;

    // The highest id + 1, added tokens included: the rows that an embedding table needs.
    std::int32_t vocab_size() const { return vocab_size_; }

private:
    Tokenizer(std::int32_t start, std::int32_t end, std::int32_t unknown, std::int32_t vocab_size,
              std::size_t max_length, const BertNormalizer &normalizer)
        : start_(start), end_(end), vocab_size_(vocab_size), max_length_(max_length), normalizer_(normalizer),
          words_(unknown) {}

    void encode_normalized(std::string_view text, std::size_t limit, std::vector<std::int64_t> &ids) const;

    std::int32_t start_, end_, vocab_size_;
    std::size_t max_length_;
    BertNormalizer normalizer_;
    AddedTokens added_, added_normalized_; // found before and after normalization
    WordPiece words_;
};

} // namespace align
