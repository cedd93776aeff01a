// Text from a stranger, made safe to print: names of files, strings of a manifest, values in an error message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align {

// The number of characters (code points) of `text`, which is UTF-8; bytes that begin no character do not count.
std::size_t character_count(std::string_view text);

// Whether `text`, which is UTF-8, has no control or format characters and no separators of lines or paragraphs.
bool is_printable(std::string_view text);

// `text` on one line of at most `limit` characters: what cannot be printed is escaped, and the middle of a longer text
// is replaced by an ellipsis, since names differ at both ends.
std::string printable(std::string_view text, std::size_t limit);

// `text` in quotes with at most `limit` characters, for the value in an error message.
std::string in_quotes(std::string_view text, std::size_t limit = 100);

} // namespace align
