// Tokens that are found before the text is split into words: [CLS], [SEP] and those that were added to a vocabulary.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "token_trie.hpp"

namespace align {

// See `tokenizers.AddedToken`.
struct AddedToken {
    std::int32_t id;
    std::string content;
    bool single_word, lstrip, rstrip, normalized, special;
};

// A part of a text: an added token, or what lies between two.
struct TextPiece {
    std::string_view text;
    const AddedToken *token; // nullptr between tokens
};

class AddedTokens {
public:
    bool empty() const { return tokens_.empty(); }

    // Adds `token`, which is found as `text`, not empty.
    void add(const AddedToken &token, std::string_view text);

    // The pieces of one text, from left to right; of several tokens that begin at one place the longest is found.
    class Splitter {
    public:
        Splitter(const AddedTokens &tokens, std::string_view text) : tokens_(tokens), text_(text) {}

        // False at the end. Throws BundleError for tokens of spaces that another token has taken already.
        bool next(TextPiece &piece);

    private:
        bool find(TextPiece &match);
        bool stands_alone(std::size_t start, std::size_t stop) const;

        const AddedTokens &tokens_;
        std::string_view text_;
        std::size_t searched_ = 0; // to where tokens were looked for
        std::size_t taken_ = 0;    // to where pieces were returned
        TextPiece waiting_{{}, nullptr};
    };

private:
    std::vector<AddedToken> tokens_;
    std::array<bool, 256> begins_{}; // whether a token begins with this byte
    TokenTrie trie_;
    TokenTrie::Node root_ = trie_.root();
};

} // namespace align
