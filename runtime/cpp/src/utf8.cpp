#include "utf8.hpp"

#include <cstdint>
#include <cstring>

namespace align::utf8 {

namespace {

// The bytes of the well-formed character at the start of `text`, 0 if there is none.
std::size_t character_length(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    std::size_t length = 0;
    unsigned char low = 0x80, high = 0xbf; // of the second byte
    if (lead < 0x80) {
        return 1;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
        length = 2;
    } else if ((lead & 0xf0) == 0xe0) {
        length = 3;
        low = lead == 0xe0 ? 0xa0 : low;   // overlong
        high = lead == 0xed ? 0x9f : high; // surrogates
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high; // beyond U+10FFFF
    }
    if (length == 0 || text.size() < length)
        return 0;
    const auto second = static_cast<unsigned char>(text[1]);
    if (second < low || second > high)
        return 0;
    for (std::size_t i = 2; i < length; ++i)
        if (!continues(text[i]))
            return 0;
    return length;
}

} // namespace

std::size_t find_invalid(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        std::uint64_t eight = 0;
        if (i + 8 <= text.size() && (std::memcpy(&eight, &text[i], 8), (eight & 0x8080808080808080U) == 0)) {
            i += 8;
            continue;
        }
        const std::size_t length = character_length(text.substr(i));
        if (length == 0)
            return i;
        i += length;
    }
    return std::string_view::npos;
}

void append(std::string &text, char32_t point) {
    const auto put = [&text](char32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
    const auto continued = [&](int shift) { put(0x80 | (point >> shift & 0x3f)); };
    if (point < 0x80) {
        put(point);
    } else if (point < 0x800) {
        put(0xc0 | point >> 6);
        continued(0);
    } else if (point < 0x10000) {
        put(0xe0 | point >> 12);
        continued(6);
        continued(0);
    } else {
        put(0xf0 | point >> 18);
        continued(12);
        continued(6);
        continued(0);
    }
}

} // namespace align::utf8
