#include "foreign_text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <iterator>

namespace align {

namespace {

struct Range {
    std::uint32_t first, last;
};

// Code points of the categories Cc, Cf, Zl and Zp of Unicode 14 (Python 3.11's unicodedata); surrogates, Cs, are no
// UTF-8.
constexpr Range UNSAFE[] = {
    {0x0, 0x1f},        {0x7f, 0x9f},       {0xad, 0xad},       {0x600, 0x605},     {0x61c, 0x61c},
    {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},     {0x8e2, 0x8e2},     {0x180e, 0x180e},
    {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x2064},   {0x2066, 0x206f},   {0xd800, 0xdfff},
    {0xfeff, 0xfeff},   {0xfff9, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x13438},
    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0001, 0xe0001}, {0xe0020, 0xe007f},
};

bool is_unsafe(std::uint32_t code) {
    const auto *found = std::lower_bound(std::begin(UNSAFE), std::end(UNSAFE), code,
                                         [](const Range &range, std::uint32_t value) { return range.last < value; });
    return found != std::end(UNSAFE) && found->first <= code;
}

constexpr std::uint32_t INVALID = 0xffffffff;

// The code point at the start of `text`, which is taken off; INVALID for a byte that begins none.
std::uint32_t take(std::string_view &text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    const std::size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    std::uint32_t code = length < 2 ? lead : lead & (0x7fU >> length);
    bool valid = length > 0 && length <= text.size();
    for (std::size_t i = 1; valid && i < length; ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        valid = byte >> 6 == 2;
        code = code << 6 | (byte & 0x3fU);
    }
    text.remove_prefix(valid ? length : 1);
    return valid ? code : INVALID;
}

std::string escaped(std::string_view text) {
    std::string result;
    while (!text.empty()) {
        const std::string_view before = text;
        const std::uint32_t code = take(text);
        if (code != INVALID && !is_unsafe(code)) {
            result += before.substr(0, before.size() - text.size());
            continue;
        }
        std::array<char, 16> buffer{};
        if (code == INVALID || code < 0x100)
            std::snprintf(buffer.data(), buffer.size(), "\\x%02x", static_cast<unsigned>(before[0]) & 0xffU);
        else
            std::snprintf(buffer.data(), buffer.size(), code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
        result += buffer.data();
    }
    return result;
}

bool begins_character(char byte) {
    return static_cast<unsigned char>(byte) >> 6 != 2;
}

// `text` with at most `limit` characters, at least 3.
std::string cut(const std::string &text, std::size_t limit) {
    const std::size_t count = character_count(text);
    if (count <= limit)
        return text;
    const std::size_t tail = limit / 2, head = limit - tail - 1;
    std::size_t seen = 0, head_end = text.size(), tail_start = text.size();
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (!begins_character(text[i]))
            continue;
        if (seen == head)
            head_end = i;
        if (seen == count - tail) {
            tail_start = i;
            break;
        }
        ++seen;
    }
    return text.substr(0, head_end) + "…" + text.substr(tail_start);
}

} // namespace

std::size_t character_count(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

bool is_printable(std::string_view text) {
    while (!text.empty()) {
        const std::uint32_t code = take(text);
        if (code == INVALID || is_unsafe(code))
            return false;
    }
    return true;
}

std::string printable(std::string_view text, std::size_t limit) {
    const std::size_t bytes = 4 * limit; // a text of gigabytes is not escaped to its end
    if (text.size() > 2 * bytes)
        return cut(escaped(std::string(text.substr(0, bytes)) + std::string(text.substr(text.size() - bytes))), limit);
    return cut(escaped(text), limit);
}

std::string in_quotes(std::string_view text, std::size_t limit) {
    if (text.size() <= 4 * limit) {
        std::string shown = "'" + escaped(text) + "'";
        return character_count(shown) <= limit ? shown : cut(shown, limit);
    }
    return cut("'" + escaped(text.substr(0, 4 * limit)) + "'", limit);
}

} // namespace align
