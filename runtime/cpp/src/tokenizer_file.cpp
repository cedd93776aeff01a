#include "tokenizer_file.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "json_values.hpp"
#include "utf8.hpp"
#include "wordpiece.hpp"

namespace align {

namespace {

constexpr std::size_t MAX_TOKENS = 1 << 20; // of a vocabulary; the largest published ones have 250,000
constexpr std::int32_t MAX_ID = 1 << 22;
constexpr std::size_t MAX_ADDED = 10000; // they are searched in every text
constexpr std::size_t MAX_TOKEN = 256;   // characters of a token; only added tokens are found beyond MAX_WORD

using Ids = std::unordered_map<std::string, std::int32_t>;
using Owners = std::unordered_map<std::int32_t, std::string>;

std::int32_t checked_id(const std::string &token, const Json &id) {
    if (const std::size_t count = character_count(token); count > MAX_TOKEN)
        throw ConfigurationError("the token " + in_quotes(token, 40) + " has " + std::to_string(count) +
                                 " characters; expected at most " + std::to_string(MAX_TOKEN));
    if (!id.is_number_integer() || id < 0 || id >= MAX_ID)
        throw ConfigurationError("the id of " + in_quotes(token) + " is " + shown(id) +
                                 "; expected an integer from 0 to " + std::to_string(MAX_ID - 1));
    return id.get<std::int32_t>();
}

// Token → id; `owners` becomes the reverse.
Ids read_vocabulary(const Json &values, Owners &owners) {
    if (values.size() > MAX_TOKENS)
        throw ConfigurationError("the vocabulary has " + std::to_string(values.size()) + " tokens; expected at most " +
                                 std::to_string(MAX_TOKENS));
    Ids ids;
    ids.reserve(values.size());
    for (const auto &[token, value] : values.items()) {
        const std::int32_t id = checked_id(token, value);
        const auto [owner, is_new] = owners.emplace(id, token);
        if (!is_new)
            throw ConfigurationError("the tokens " + in_quotes(owner->second) + " and " + in_quotes(token) +
                                     " have the same id, " + std::to_string(id));
        ids.emplace(token, id);
    }
    return ids;
}

std::vector<AddedToken> read_added(const Json &values) {
    const std::string where = "added_tokens";
    if (values.size() > MAX_ADDED)
        throw ConfigurationError(std::to_string(values.size()) + " added tokens; expected at most " +
                                 std::to_string(MAX_ADDED));
    std::vector<AddedToken> added;
    for (const Json &each : values) {
        as_object(where, each);
        const auto flag = [&](const char *name) { return boolean(where, each, name); };
        const std::string &content = string(where, each, "content");
        added.push_back({checked_id(content, member(where, each, "id")), content, flag("single_word"), flag("lstrip"),
                         flag("rstrip"), flag("normalized"), flag("special")});
    }
    return added;
}

// The text by which `token` is found.
std::string searched_text(const AddedToken &token, const BertNormalizer &normalizer) {
    if (!token.normalized)
        return token.content;
    std::string text;
    normalizer.append(token.content, text);
    if (text.empty())
        throw ConfigurationError("of the added token " + in_quotes(token.content) +
                                 " nothing is left after normalization");
    return text;
}

// Checks the added tokens of `description`, whose vocabulary is in `ids` and `owners`, and adds them to both.
void check_added(TokenizerDescription &description, Ids &ids, Owners &owners) {
    const auto words = static_cast<std::int32_t>(ids.size());
    std::unordered_map<std::string, std::string> found; // content by normalized text
    std::unordered_map<std::string, bool> seen;
    std::int32_t next = words; // the id that `tokenizers` gives to a token that is not in the vocabulary
    for (const AddedToken &token : description.added) {
        const std::string name = in_quotes(token.content), id = std::to_string(token.id);
        if (token.content.empty() || !seen.emplace(token.content, true).second)
            throw ConfigurationError("the added token " + name +
                                     (token.content.empty() ? " is empty" : " is listed twice"));
        const auto known = ids.find(token.content);
        if (known != ids.end() && known->second != token.id)
            throw ConfigurationError("the added token " + name + " has the id " + id + ", and " +
                                     std::to_string(known->second) + " in the vocabulary");
        if (known == ids.end() && !owners.emplace(token.id, token.content).second)
            throw ConfigurationError("the id " + id + " of the added token " + name + " belongs to another token");
        if (known == ids.end() && token.id != next++)
            throw ConfigurationError("the added token " + name + " has the id " + id + ", expected " +
                                     std::to_string(next - 1));
        ids.emplace(token.content, token.id);
        description.added_texts.push_back(searched_text(token, description.normalizer));
        if (!token.normalized)
            continue;
        const auto [other, is_new] = found.emplace(description.added_texts.back(), token.content);
        if (!is_new)
            throw ConfigurationError("the added tokens " + in_quotes(other->second) + " and " + name +
                                     " are the same after normalization");
    }
}

bool is_space(char32_t point) { // as Python's str.isspace
    return (point >= 9 && point <= 13) || (point >= 28 && point <= 32) || point == 0x85 || point == 0xa0 ||
           point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 || point == 0x2029 ||
           point == 0x202f || point == 0x205f || point == 0x3000;
}

std::int32_t enclosing_id(const std::string &token, const Ids &ids) {
    const auto found = ids.find(token);
    if (found == ids.end())
        throw ConfigurationError(in_quotes(token) + ", which encloses every text, is not a token");
    for (std::size_t i = 0; i < token.size();)
        if (const char32_t point = utf8::next(token, i); is_space(point) || point == ':' || point == '$')
            throw ConfigurationError(in_quotes(token) + " cannot enclose a text: it has a space, a colon or a dollar");
    return found->second;
}

// The tokens before and after a text in the post-processor.
std::pair<std::string, std::string> enclosing(const Json &values) {
    try {
        const Json &single = values.at("post_processor").at("single");
        if (single.size() == 3)
            return {single.at(0).at("SpecialToken").at("id").get<std::string>(),
                    single.at(2).at("SpecialToken").at("id").get<std::string>()};
    } catch (const Json::exception &) { // another form
    }
    throw ConfigurationError("post_processor is not the template of BERT, a token before a text and one after it");
}

Json special(const std::string &token, int type) {
    return {{"SpecialToken", {{"id", token}, {"type_id", type}}}};
}

Json sequence(const char *name, int type) {
    return {{"Sequence", {{"id", name}, {"type_id", type}}}};
}

// The document as align-export writes it, without its vocabulary and added tokens.
Json written(const Json &normalizer, const std::string &unknown, const std::string &start, const std::string &end,
             const Ids &ids) {
    Json tokens = Json::object();
    for (const std::string &token : {start, end})
        tokens[token] = {{"id", token}, {"ids", Json::array({ids.at(token)})}, {"tokens", Json::array({token})}};
    Json steps = {{"type", "BertNormalizer"}, {"clean_text", true}};
    for (const char *name : {"handle_chinese_chars", "strip_accents", "lowercase"})
        steps[name] = normalizer[name];
    return {
        {"version", "1.0"},
        {"truncation", nullptr},
        {"padding", nullptr},
        {"normalizer", steps},
        {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", Json::array({special(start, 0), sequence("A", 0), special(end, 0)})},
          {"pair",
           Json::array({special(start, 0), sequence("A", 0), special(end, 0), sequence("B", 1), special(end, 1)})},
          {"special_tokens", tokens}}},
        {"decoder", {{"type", "WordPiece"}, {"prefix", PREFIX}, {"cleanup", true}}},
        {"model",
         {{"type", "WordPiece"},
          {"unk_token", unknown},
          {"continuing_subword_prefix", PREFIX},
          {"max_input_chars_per_word", MAX_WORD}}},
    };
}

// Throws ConfigurationError, with the place, where `given` is not what would be `expected`.
void check_equal(const Json &given, const Json &expected, const std::string &where) {
    const auto refuse = [&](const std::string &place, const std::string &value, const std::string &wanted) {
        throw ConfigurationError(in_quotes(place) + " is " + value + "; expected " + wanted);
    };
    if (!given.is_object() || !expected.is_object()) {
        // 0 and 0.0 are equal as numbers, but another text
        if (given != expected || given.dump() != expected.dump())
            refuse(where, shown(given), shown(expected));
        return;
    }
    const std::string before = where.empty() ? where : where + ".";
    for (const auto &[key, value] : expected.items()) {
        const auto found = given.find(key);
        if (found == given.end())
            refuse(before + key, "missing", shown(value));
        check_equal(*found, value, before + key);
    }
    for (const auto &[key, value] : given.items())
        if (!expected.contains(key))
            refuse(before + key, shown(value), "missing");
}

} // namespace

TokenizerDescription TokenizerDescription::from_json(Json values) {
    const std::string where = "the tokenizer";
    const Json &model = object(where, values, "model"), &normalizer = object(where, values, "normalizer");
    const auto [start_token, end_token] = enclosing(values);
    Owners owners;
    Ids ids = read_vocabulary(object("model", model, "vocab"), owners);
    TokenizerDescription found{};
    found.added = read_added(array(where, values, "added_tokens"));
    const std::string unknown = string("model", model, "unk_token");
    const bool lowercase = boolean("normalizer", normalizer, "lowercase");
    const bool accents_unset = member("normalizer", normalizer, "strip_accents").is_null();
    found.normalizer = {boolean("normalizer", normalizer, "handle_chinese_chars"),
                        accents_unset ? lowercase : boolean("normalizer", normalizer, "strip_accents"), lowercase};
    const auto place = ids.find(unknown);
    if (place == ids.end())
        throw ConfigurationError("the vocabulary lacks the unknown token " + in_quotes(unknown));
    found.unknown = place->second;
    found.vocabulary.assign(ids.begin(), ids.end());
    check_added(found, ids, owners);
    found.start = enclosing_id(start_token, ids);
    found.end = enclosing_id(end_token, ids);
    for (const auto &[token, id] : ids)
        found.size = std::max(found.size, id + 1);

    const Json expected = written(normalizer, unknown, start_token, end_token, ids);
    for (const Json &each : values["added_tokens"])
        if (each.size() != 7)
            throw ConfigurationError("added_tokens has an unknown key");
    values["model"].erase("vocab");
    values.erase("added_tokens");
    check_equal(values, expected, "");
    return found;
}

} // namespace align
