// Every error that the library raises on purpose: one class per status, with the names of align_runtime.errors.
#pragma once

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>

#include "align_runtime.h"

namespace align {

// Base of all errors. The C API turns it into its status and message, and into one line of at most 500 characters.
class Error : public std::runtime_error {
public:
    Error(align_status code, const std::string &text) : std::runtime_error(text), status(code), message(text) {}

    align_status status;
    std::string message;
};

// An option or argument that is unknown, missing or out of range.
struct ConfigurationError : Error {
    explicit ConfigurationError(const std::string &text) : Error(ALIGN_ERROR_CONFIGURATION, text) {}
};

// An image or text that cannot be embedded; `index` is its position in the input, if it is one of several.
struct InputError : Error {
    explicit InputError(const std::string &text, std::optional<std::size_t> place = std::nullopt)
        : Error(ALIGN_ERROR_INPUT, place ? "input " + std::to_string(*place) + ": " + text : text), reason(text),
          index(place) {}

    // The same error at `place`.
    InputError at(std::size_t place) const { return InputError(reason, place); }

    std::string reason; // the message without the index
    std::optional<std::size_t> index;
};

// A bundle that is missing, damaged or of another schema version.
struct BundleError : Error {
    explicit BundleError(const std::string &text) : Error(ALIGN_ERROR_BUNDLE, text) {}
};

// A library or device that was asked for and is not available.
struct BackendUnavailableError : Error {
    explicit BackendUnavailableError(const std::string &text) : Error(ALIGN_ERROR_BACKEND_UNAVAILABLE, text) {}
};

// A device that ran out of memory or failed while it computed.
struct DeviceError : Error {
    explicit DeviceError(const std::string &text) : Error(ALIGN_ERROR_DEVICE, text) {}
};

// A buffer of the caller's that is too small.
struct BufferTooSmallError : Error {
    explicit BufferTooSmallError(const std::string &text) : Error(ALIGN_BUFFER_TOO_SMALL, text) {}
};

} // namespace align
