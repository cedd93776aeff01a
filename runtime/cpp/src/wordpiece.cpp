#include "wordpiece.hpp"

#include "unicode_tables.hpp"
#include "utf8.hpp"

namespace align {

void WordPiece::add(std::string_view token, std::int32_t id) {
    const bool continues = token.size() > PREFIX.size() && token.substr(0, PREFIX.size()) == PREFIX;
    if (continues) // no word begins with the prefix, which is punctuation
        trie_.insert(continued_, token.substr(PREFIX.size()), id);
    else if (!token.empty())
        trie_.insert(start_, token, id);
}

void WordPiece::encode(std::string_view text, std::size_t limit, std::vector<std::int64_t> &ids) const {
    std::size_t start = 0, characters = 0;
    const auto end_word = [&](std::size_t end) {
        if (characters > MAX_WORD)
            ids.push_back(unknown_);
        else if (characters > 0)
            encode_word(text.substr(start, end - start), ids);
        characters = 0;
    };
    for (std::size_t next = 0; next < text.size() && ids.size() < limit;) {
        const std::size_t here = next;
        const std::uint16_t flags = unicode::flags(utf8::next(text, next));
        if ((flags & (unicode::SPLITS | unicode::PUNCTUATION)) == 0) {
            ++characters;
            continue;
        }
        end_word(here);
        if ((flags & unicode::PUNCTUATION) != 0)
            encode_word(text.substr(here, next - here), ids);
        start = next;
    }
    end_word(text.size());
}

void WordPiece::encode_word(std::string_view word, std::vector<std::int64_t> &ids) const {
    const std::size_t before = ids.size();
    TokenTrie::Node root = start_;
    while (!word.empty()) {
        const TokenTrie::Match found = trie_.longest(root, word);
        if (found.value < 0) {
            ids.resize(before);
            ids.push_back(unknown_);
            return;
        }
        ids.push_back(found.value);
        word.remove_prefix(found.length);
        root = continued_;
    }
}

} // namespace align
