// UTF-8: validation, and the code points of a text that is valid.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align::utf8 {

// The offset of the first byte that is not part of valid UTF-8 (no surrogates, no overlong forms, no code point from
// 0x110000); npos for a valid text.
std::size_t find_invalid(std::string_view text);

inline bool continues(char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0) == 0x80;
}

// The code point at `position`, which is moved behind it. `text` must be valid.
inline char32_t next(std::string_view text, std::size_t &position) {
    const auto byte = [&](std::size_t offset) { return static_cast<unsigned char>(text[position + offset]); };
    const char32_t lead = byte(0);
    char32_t point = lead;
    std::size_t length = 1;
    if (lead >= 0xf0) {
        point = (lead & 7) << 18 | (byte(1) & 0x3fU) << 12 | (byte(2) & 0x3fU) << 6 | (byte(3) & 0x3fU);
        length = 4;
    } else if (lead >= 0xe0) {
        point = (lead & 15) << 12 | (byte(1) & 0x3fU) << 6 | (byte(2) & 0x3fU);
        length = 3;
    } else if (lead >= 0x80) {
        point = (lead & 31) << 6 | (byte(1) & 0x3fU);
        length = 2;
    }
    position += length;
    return point;
}

// The code point before `position`, which is moved to its start. `text` must be valid, `position` not 0.
inline char32_t previous(std::string_view text, std::size_t &position) {
    do
        --position;
    while (continues(text[position]));
    std::size_t start = position;
    return next(text, start);
}

void append(std::string &text, char32_t point);

} // namespace align::utf8
