#include "added_tokens.hpp"

#include <algorithm>

#include "errors.hpp"
#include "unicode_tables.hpp"
#include "utf8.hpp"

namespace align {

void AddedTokens::add(const AddedToken &token, std::string_view text) {
    begins_[static_cast<unsigned char>(text[0])] = true;
    trie_.insert(root_, text, static_cast<std::int32_t>(tokens_.size()));
    tokens_.push_back(token);
}

bool AddedTokens::Splitter::next(TextPiece &piece) {
    if (waiting_.token != nullptr) {
        piece = waiting_;
        waiting_.token = nullptr;
        return true;
    }
    TextPiece match{{}, nullptr};
    if (!find(match)) {
        piece = {text_.substr(std::min(taken_, text_.size())), nullptr};
        taken_ = text_.size();
        return !piece.text.empty();
    }
    const auto start = static_cast<std::size_t>(match.text.data() - text_.data());
    const std::size_t before = taken_;
    taken_ = start + match.text.size();
    if (before >= start) {
        piece = match;
    } else {
        piece = {text_.substr(before, start - before), nullptr};
        waiting_ = match;
    }
    return true;
}

// The next token, with the spaces that it takes.
bool AddedTokens::Splitter::find(TextPiece &match) {
    while (searched_ < text_.size()) {
        std::size_t start = searched_;
        const bool begins = tokens_.begins_[static_cast<unsigned char>(text_[start])];
        const TokenTrie::Match found =
            begins ? tokens_.trie_.longest(tokens_.root_, text_.substr(start)) : TokenTrie::Match{0, -1};
        if (found.value < 0) {
            ++searched_;
            continue;
        }
        std::size_t stop = searched_ = start + found.length;
        const AddedToken &token = tokens_.tokens_[static_cast<std::size_t>(found.value)];
        if (token.single_word && !stands_alone(start, stop))
            continue;
        if (token.lstrip) {
            for (std::size_t at = start;
                 at > 0 && (unicode::flags(utf8::previous(text_, at)) & unicode::STRIPPED) != 0;)
                start = at;
            start = std::max(start, taken_);
        }
        if (token.rstrip)
            for (std::size_t at = stop;
                 at < text_.size() && (unicode::flags(utf8::next(text_, at)) & unicode::STRIPPED) != 0;)
                stop = at;
        if (start > stop) // there `tokenizers` panics
            throw BundleError("the added token '" + token.content +
                              "' consists of spaces, which the token before it "
                              "strips; export the checkpoint again without it");
        match = {text_.substr(start, stop - start), &token};
        return true;
    }
    return false;
}

bool AddedTokens::Splitter::stands_alone(std::size_t start, std::size_t stop) const {
    const auto in_word = [](char32_t point) { return (unicode::flags(point) & unicode::WORD) != 0; };
    if (start > 0 && in_word(utf8::previous(text_, start)))
        return false;
    return stop == text_.size() || !in_word(utf8::next(text_, stop));
}

} // namespace align
