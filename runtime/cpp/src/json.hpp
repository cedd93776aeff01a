// Reading JSON that may be wrong, with the limits and refusals of align_runtime.json_files.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace align {

using Json = nlohmann::json;

constexpr int MAX_JSON_DEPTH = 64; // objects and arrays in each other; a tokenizer.json has 6

// The JSON object in `bytes` (UTF-8, with or without a byte-order mark), which errors call `where`. Throws BundleError
// unless it is one, is valid Unicode, nests at most MAX_JSON_DEPTH deep and has at most `max_bytes` bytes. Of a key
// that is there twice the last value counts.
Json parse_object(std::string_view bytes, const std::string &where, std::size_t max_bytes);

} // namespace align
