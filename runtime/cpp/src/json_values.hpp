// Values of a JSON object that may be wrong: every error names the place, the key and the value. The checks are those
// of align_runtime.json_files; each throws ConfigurationError.
#pragma once

#include <cstdint>
#include <string>

#include "json.hpp"

namespace align {

constexpr std::size_t MAX_TEXT = 4096; // characters of a text in a manifest: names, versions, reasons
constexpr std::size_t MAX_PATH = 512;
constexpr int MAX_FREE_DEPTH = 8; // of values whose form is free, such as the options of an export

// `value` as an error message shows it.
std::string shown(const Json &value);

// The value of `key`, of any type.
const Json &member(const std::string &where, const Json &values, const char *key);

const Json &object(const std::string &where, const Json &values, const char *key);
const Json &array(const std::string &where, const Json &values, const char *key);
bool boolean(const std::string &where, const Json &values, const char *key);

// `value`, an element of an array or object called `where`, which must be an object.
const Json &as_object(const std::string &where, const Json &value);

// An integer from `least` to `most`; neither a float nor a boolean is one.
std::int64_t integer(const std::string &where, const Json &values, const char *key, std::int64_t least,
                     std::int64_t most);

// A finite number from `least` to `most`.
double number(const std::string &where, const Json &values, const char *key, double least, double most);

// A string of any length.
const std::string &string(const std::string &where, const Json &values, const char *key);

// A string of at most MAX_TEXT characters, and the same for a value called `where`.
const std::string &text(const std::string &where, const Json &values, const char *key);
const std::string &short_text(const std::string &where, const Json &value);

// Checks a value whose form is free: its depth, its texts, and that its numbers are finite.
void check_free_form(const std::string &where, const Json &value, int depth = MAX_FREE_DEPTH);

// `name`, which must be a plain relative path (POSIX separators, no "..") that stays inside its folder, without
// characters that cannot be printed.
const std::string &relative_path(const std::string &name);

} // namespace align
