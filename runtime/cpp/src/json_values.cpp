#include "json_values.hpp"

#include <cmath>
#include <limits>

#include "errors.hpp"
#include "foreign_text.hpp"

namespace align {

namespace {

[[noreturn]] void refuse(const std::string &where, const Json &value, const std::string &expected) {
    throw ConfigurationError(where + " is " + shown(value) + " (" + value.type_name() + "); expected " + expected);
}

std::string at(const std::string &where, const char *key) {
    return where + ": " + key;
}

template <typename Number> std::string range(Number least, Number most) {
    return Json(least).dump() + " to " + Json(most).dump();
}

} // namespace

std::string shown(const Json &value) {
    constexpr std::size_t LIMIT = 100;
    if (value.is_string())
        return in_quotes(value.get_ref<const std::string &>(), LIMIT);
    if (value.is_structured())
        return value.empty() ? "empty" : std::string("an ") + value.type_name() + " of " + std::to_string(value.size());
    return printable(value.dump(), LIMIT);
}

const Json &member(const std::string &where, const Json &values, const char *key) {
    const auto found = values.find(key);
    if (found == values.end())
        throw ConfigurationError(where + ": the key '" + key + "' is missing");
    return *found;
}

const Json &object(const std::string &where, const Json &values, const char *key) {
    return as_object(at(where, key), member(where, values, key));
}

const Json &array(const std::string &where, const Json &values, const char *key) {
    const Json &value = member(where, values, key);
    if (!value.is_array())
        refuse(at(where, key), value, "array");
    return value;
}

bool boolean(const std::string &where, const Json &values, const char *key) {
    const Json &value = member(where, values, key);
    if (!value.is_boolean())
        refuse(at(where, key), value, "boolean");
    return value.get<bool>();
}

const Json &as_object(const std::string &where, const Json &value) {
    if (!value.is_object())
        refuse(where, value, "object");
    return value;
}

std::int64_t integer(const std::string &where, const Json &values, const char *key, std::int64_t least,
                     std::int64_t most) {
    const Json &value = member(where, values, key);
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ||
                       value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()});
    if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most)
        refuse(at(where, key), value, "an integer from " + range(least, most));
    return value.get<std::int64_t>();
}

double number(const std::string &where, const Json &values, const char *key, double least, double most) {
    const Json &value = member(where, values, key);
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < least ||
        value.get<double>() > most)
        refuse(at(where, key), value, "a number from " + range(least, most));
    return value.get<double>();
}

const std::string &string(const std::string &where, const Json &values, const char *key) {
    const Json &value = member(where, values, key);
    if (!value.is_string())
        refuse(at(where, key), value, "string");
    return value.get_ref<const std::string &>();
}

const std::string &text(const std::string &where, const Json &values, const char *key) {
    return short_text(at(where, key), member(where, values, key));
}

const std::string &short_text(const std::string &where, const Json &value) {
    if (!value.is_string())
        refuse(where, value, "string");
    const auto &result = value.get_ref<const std::string &>();
    if (const std::size_t count = character_count(result); count > MAX_TEXT)
        throw ConfigurationError(where + " has " + std::to_string(count) + " characters; expected at most " +
                                 std::to_string(MAX_TEXT));
    return result;
}

void check_free_form(const std::string &where, const Json &value, int depth) {
    if (value.is_structured() && depth == 0)
        throw ConfigurationError(where + " is nested deeper than " + std::to_string(MAX_FREE_DEPTH) + " levels");
    if (value.is_object())
        for (const auto &[key, entry] : value.items()) {
            short_text(where, key);
            check_free_form(where, entry, depth - 1);
        }
    else if (value.is_array())
        for (const Json &entry : value)
            check_free_form(where, entry, depth - 1);
    else if (value.is_string())
        short_text(where, value);
}

const std::string &relative_path(const std::string &name) {
    bool plain = character_count(name) <= MAX_PATH && is_printable(name) && name.find_first_of("\\:") == name.npos;
    for (std::size_t start = 0; plain && start <= name.size();) { // an absolute path has an empty first part
        const std::size_t end = std::min(name.find('/', start), name.size());
        const std::string part = name.substr(start, end - start);
        plain = !part.empty() && part != "." && part != "..";
        start = end + 1;
    }
    if (!plain)
        throw ConfigurationError("the path " + in_quotes(name) + " is not a plain path inside the bundle");
    return name;
}

} // namespace align
