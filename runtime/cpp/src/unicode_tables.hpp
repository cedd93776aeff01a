// What the pinned `tokenizers` package does with a code point. The arrays are in unicode_tables.cpp, which
// generate_unicode_tables.py writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace align::unicode {

enum Flag : std::uint16_t {
    REMOVED = 1 << 0,     // by clean_text: controls, formats, private use, U+FFFD
    SPACE = 1 << 1,       // made a space by clean_text
    IDEOGRAPH = 1 << 2,   // set apart by handle_chinese_chars
    MARK = 1 << 3,        // removed by strip_accents
    DECOMPOSED = 1 << 4,  // has a decomposition
    LOWERED = 1 << 5,     // has another lower case
    COMBINING = 1 << 6,   // moved by canonical ordering
    SPLITS = 1 << 7,      // between words, and dropped
    PUNCTUATION = 1 << 8, // a word of its own
    WORD = 1 << 9,        // \w, beside which an added token with single_word is not found
    STRIPPED = 1 << 10,   // \s, taken by an added token with lstrip or rstrip
};

constexpr std::size_t BLOCK = 128; // code points with one entry in BLOCKS

extern const std::uint8_t BLOCKS[0x110000 / BLOCK];
extern const std::uint16_t FLAGS[]; // by block and code point within it

inline std::uint16_t flags(char32_t point) {
    return FLAGS[BLOCKS[point / BLOCK] * BLOCK + point % BLOCK];
}

// The canonical decomposition of a code point with the flag DECOMPOSED that is not a Hangul syllable.
std::u32string_view decomposition(char32_t point);

// The lower case of a code point with the flag LOWERED.
std::u32string_view lower(char32_t point);

// The rank of its combining class, from 1, of a code point with the flag COMBINING.
std::uint8_t combining_rank(char32_t point);

} // namespace align::unicode
