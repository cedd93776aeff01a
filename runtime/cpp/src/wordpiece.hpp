// Words to the ids of their pieces: BERT's WordPiece.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "token_trie.hpp"

namespace align {

constexpr std::string_view PREFIX = "##"; // of a token that continues a word
constexpr std::size_t MAX_WORD = 100;     // characters; a longer word is the unknown token

// Splits text that is normalized into words, at spaces and around punctuation, and words into the longest pieces.
class WordPiece {
public:
    explicit WordPiece(std::int32_t unknown) : unknown_(unknown) {}

    void add(std::string_view token, std::int32_t id);

    // Appends the ids of `text`, valid UTF-8, until `ids` has `limit` of them or more.
    void encode(std::string_view text, std::size_t limit, std::vector<std::int64_t> &ids) const;

private:
    void encode_word(std::string_view word, std::vector<std::int64_t> &ids) const;

    TokenTrie trie_;
    TokenTrie::Node start_ = trie_.root(), continued_ = trie_.root();
    std::int32_t unknown_;
};

} // namespace align
