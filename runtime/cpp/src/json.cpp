#include "json.hpp"

#include "errors.hpp"

namespace align {

Json parse_object(std::string_view bytes, const std::string &where, std::size_t max_bytes) {
    if (bytes.size() > max_bytes)
        throw BundleError(where + " has " + std::to_string(bytes.size()) + " bytes; expected at most " +
                          std::to_string(max_bytes));
    if (bytes.find('\0') != std::string_view::npos) // the parser would take it for the end
        throw BundleError(where + " is not valid JSON: it has a NUL byte");
    Json::parser_callback_t too_deep = [&](int depth, Json::parse_event_t, Json &) {
        if (depth >= MAX_JSON_DEPTH)
            throw BundleError(where + " nests objects and arrays more than " + std::to_string(MAX_JSON_DEPTH) +
                              " deep");
        return true;
    };
    Json value;
    try {
        value = Json::parse(bytes.begin(), bytes.end(), too_deep);
    } catch (const Json::exception &reason) {
        throw BundleError(where + " is not valid JSON: " + reason.what());
    }
    if (!value.is_object())
        throw BundleError(where + " holds a JSON " + value.type_name() + "; expected an object");
    return value;
}

} // namespace align
