#include "tokenizer.hpp"

#include <algorithm>
#include <string>

#include "errors.hpp"
#include "json.hpp"
#include "tokenizer_file.hpp"
#include "utf8.hpp"

namespace align {

namespace {

constexpr std::int32_t MAX_LENGTH = 1 << 20;
constexpr std::int32_t ENCLOSING = 2; // tokens around a text

TokenizerDescription description_of(std::string_view bytes) {
    try {
        return TokenizerDescription::from_json(parse_object(bytes, "tokenizer.json", MAX_TOKENIZER_BYTES));
    } catch (const ConfigurationError &reason) {
        throw BundleError("tokenizer.json: " + reason.message + "; it is not as align-export writes it, export again");
    }
}

} // namespace

Tokenizer Tokenizer::from_json(std::string_view bytes, std::int32_t max_length, std::int64_t pad_id) {
    const TokenizerDescription description = description_of(bytes);
    if (max_length <= ENCLOSING || max_length > MAX_LENGTH)
        throw ConfigurationError("max_length is " + std::to_string(max_length) + "; expected " +
                                 std::to_string(ENCLOSING + 1) + " to " + std::to_string(MAX_LENGTH));
    if (pad_id < 0 || pad_id >= description.size)
        throw ConfigurationError("pad_token_id is " + std::to_string(pad_id) +
                                 "; expected an id of the vocabulary, 0 to " + std::to_string(description.size - 1));
    Tokenizer tokenizer(description.start, description.end, description.unknown, description.size,
                        static_cast<std::size_t>(max_length), description.normalizer);
    for (const auto &[token, id] : description.vocabulary)
        tokenizer.words_.add(token, id);
    for (std::size_t i = 0; i < description.added.size(); ++i)
        (description.added[i].normalized ? tokenizer.added_normalized_ : tokenizer.added_)
            .add(description.added[i], description.added_texts[i]);
    return tokenizer;
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view utf8) const {
    if (const std::size_t at = utf8::find_invalid(utf8); at != std::string_view::npos)
        throw InputError("the text is not valid UTF-8 at byte " + std::to_string(at) +
                         "; decode it with the encoding "
                         "that it has");
    const std::size_t limit = max_length_ - 1; // ids before [SEP]
    std::vector<std::int64_t> ids;
    ids.reserve(std::min(max_length_, utf8.size() + ENCLOSING));
    ids.push_back(start_);
    std::string normalized;
    AddedTokens::Splitter pieces(added_, utf8);
    for (TextPiece piece{{}, nullptr}; ids.size() < limit && pieces.next(piece);) {
        if (piece.token != nullptr) {
            ids.push_back(piece.token->id);
            continue;
        }
        normalized.clear();
        normalizer_.append(piece.text, normalized);
        encode_normalized(normalized, limit, ids);
    }
    ids.resize(std::min(ids.size(), limit));
    ids.push_back(end_);
    return ids;
}

void Tokenizer::encode_normalized(std::string_view text, std::size_t limit, std::vector<std::int64_t> &ids) const {
    AddedTokens::Splitter pieces(added_normalized_, text);
    for (TextPiece piece{{}, nullptr}; ids.size() < limit && pieces.next(piece);) {
        if (piece.token != nullptr)
            ids.push_back(piece.token->id);
        else
            words_.encode(piece.text, limit, ids);
    }
}

} // namespace align
