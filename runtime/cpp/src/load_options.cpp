#include "load_options.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "manifest.hpp"
#include "processors.hpp"

namespace align {

namespace {

constexpr int MAX_STREAMS = 1024;
constexpr std::size_t LARGEST_MAX_PIXELS = 178956970; // 512 MiB as RGB
// Of the first release: structs of all programs have at least these fields.
constexpr std::size_t SMALLEST = offsetof(align_options, onnxruntime_library) + sizeof(const char *);

std::string text_of(const char *value, const char *otherwise) {
    return value == nullptr ? otherwise : value;
}

std::optional<int> checked_count(const char *name, std::int32_t value, int most) {
    if (value < 0 || value > most)
        throw ConfigurationError(std::string(name) + " is " + std::to_string(value) + "; expected 1 to " +
                                 std::to_string(most) + ", or 0 for as many as there are cores");
    return value == 0 ? std::nullopt : std::optional(value);
}

void read_towers(const std::string &towers, LoadOptions &options) {
    options.vision = options.text = false;
    std::size_t start = 0;
    while (start <= towers.size()) {
        const std::size_t end = std::min(towers.find(',', start), towers.size());
        const std::string name = towers.substr(start, end - start);
        if (name != VISION && name != TEXT)
            throw ConfigurationError("towers is " + in_quotes(towers) + "; expected 'vision,text', 'vision' or 'text'");
        (name == VISION ? options.vision : options.text) = true;
        start = end + 1;
    }
}

Background background_of(const std::string &alpha) {
    if (alpha == "drop")
        return std::nullopt;
    if (alpha.size() != 7 || alpha[0] != '#' || alpha.find_first_not_of("0123456789abcdefABCDEF", 1) != alpha.npos)
        throw ConfigurationError("alpha is " + in_quotes(alpha) + "; expected 'drop' or a colour such as '#ffffff'");
    const auto channel = [&](std::size_t at) {
        return static_cast<std::uint8_t>(std::stoi(alpha.substr(at, 2), nullptr, 16));
    };
    return Colour{channel(1), channel(3), channel(5)};
}

} // namespace

LoadOptions LoadOptions::from(const align_options *given) {
    align_options values = align_default_options();
    if (given != nullptr) {
        if (given->struct_size < SMALLEST || given->struct_size > sizeof values)
            throw ConfigurationError("struct_size of align_options is " + std::to_string(given->struct_size) +
                                     "; expected " + std::to_string(SMALLEST) + " to " + std::to_string(sizeof values) +
                                     ", begin with align_default_options() and the header of this library");
        std::memcpy(&values, given, given->struct_size);
    }
    LoadOptions options;
    options.precision = text_of(values.precision, "fp32");
    options.device = parse_device(text_of(values.device, "cpu"));
    read_towers(text_of(values.towers, "vision,text"), options);
    options.threads = checked_count("threads", values.threads, MAX_THREADS);
    options.streams = checked_count("streams", values.streams, MAX_STREAMS);
    options.check_hashes = values.check_hashes != 0;
    options.onnxruntime_library = text_of(values.onnxruntime_library, "");
    options.provider_library = text_of(values.provider_library, "");
    options.manifest_sha256 = text_of(values.manifest_sha256, "");
    if (!options.manifest_sha256.empty()) {
        if (!is_sha256(options.manifest_sha256))
            throw ConfigurationError("manifest_sha256 is " + in_quotes(options.manifest_sha256, 80) +
                                     "; expected 64 hexadecimal digits in lower case");
        options.check_hashes = true; // the pin stands for the files by their hashes
    }
    options.background = background_of(text_of(values.alpha, "drop"));
    if (values.max_pixels > LARGEST_MAX_PIXELS)
        throw ConfigurationError("max_pixels is " + std::to_string(values.max_pixels) + "; expected at most " +
                                 std::to_string(LARGEST_MAX_PIXELS));
    if (values.max_pixels > 0)
        options.limits.max_pixels = values.max_pixels;
    if (options.threads && !options.device.on_cpu)
        throw ConfigurationError("threads is " + std::to_string(*options.threads) + ", but " + options.device.name +
                                 " computes on the GPU; leave threads out");
    if (options.streams.value_or(1) > 1 && !options.device.on_cpu)
        throw ConfigurationError("streams is " + std::to_string(*options.streams) + ", but " + options.device.name +
                                 " has none; leave streams out");
    return options;
}

int LoadOptions::thread_count() const {
    return threads ? *threads : available_cores();
}

int LoadOptions::stream_count() const {
    return streams ? *streams : device.on_cpu ? thread_count() : 1;
}

} // namespace align
