// tokenizer.json: the one form of it that align-export writes, a tokenizer of BERT. What it refuses and why is told in
// align_runtime/tokenizer_file.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "added_tokens.hpp"
#include "bert_normalizer.hpp"
#include "json.hpp"

namespace align {

// Everything that token ids depend on.
struct TokenizerDescription {
    std::vector<std::pair<std::string, std::int32_t>> vocabulary;
    std::int32_t unknown, start, end; // ids of the tokens for an unknown word, before and after a text
    BertNormalizer normalizer;
    std::vector<AddedToken> added;        // in the order of their ids
    std::vector<std::string> added_texts; // as they are found in a text: normalized, if the token is
    std::int32_t size;                    // the highest id + 1: the rows that an embedding table needs

    // Reads the document `values`. Throws ConfigurationError for a section that is missing, unknown, of the wrong type
    // or with other content, and for tokens and ids that are out of their bounds or contradict each other.
    static TokenizerDescription from_json(Json values);
};

} // namespace align
