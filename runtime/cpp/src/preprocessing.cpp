#include "preprocessing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "errors.hpp"
#include "json_values.hpp"

namespace align {

namespace {

const std::string WHERE = "preprocessing";
constexpr const char *KEYS[] = {"size",           "resample",   "crop_size", "rescale_factor",
                                "rescale_offset", "image_mean", "image_std", "include_top"};
constexpr int FILTERS = 6;

using Triple = std::array<double, 3>;

// `read` of the value of `key`, or nothing where it is null.
template <class Read> auto optional(const Json &values, const char *key, Read read) {
    const Json &value = values.at(key);
    return value.is_null() ? std::nullopt : std::make_optional(read(value));
}

double finite(const Json &values, const char *key) {
    constexpr double MOST = std::numeric_limits<double>::max();
    return number(WHERE, values, key, -MOST, MOST);
}

Triple triple(const char *key, const Json &value) {
    const std::string name = WHERE + ": " + key;
    if (!value.is_array() || value.size() != 3)
        throw ConfigurationError(name + " is " + shown(value) + "; expected 3 values, one per channel");
    Triple found{};
    for (std::size_t i = 0; i < 3; ++i)
        found[i] = finite({{key, value[i]}}, key);
    return found;
}

void check_keys(const Json &values) {
    for (const char *key : KEYS)
        member(WHERE, values, key);
    if (values.size() != std::size(KEYS))
        throw ConfigurationError(WHERE + " has " + std::to_string(values.size()) + " keys; expected " +
                                 std::to_string(std::size(KEYS)));
}

// What is done with the values of the pixels.
struct Affine {
    std::optional<double> factor;
    bool offset;
    std::optional<Triple> mean, std;
    bool include_top;

    // Rescaling multiplies in float64 and rounds to float32; all later steps are in float32.
    float value(int level, std::size_t channel) const {
        auto result = static_cast<float>(level);
        if (factor)
            result = static_cast<float>(level * *factor) - (offset ? 1.0F : 0.0F);
        if (mean)
            result = (result - static_cast<float>((*mean)[channel])) / static_cast<float>((*std)[channel]);
        if (include_top)
            result = result / static_cast<float>((*std)[channel]);
        return result;
    }
};

Affine read_affine(const Json &values) {
    const auto read_triple = [](const char *key) { return [key](const Json &value) { return triple(key, value); }; };
    const Affine affine{
        optional(values, "rescale_factor", [&](const Json &) { return finite(values, "rescale_factor"); }),
        boolean(WHERE, values, "rescale_offset"), optional(values, "image_mean", read_triple("image_mean")),
        optional(values, "image_std", read_triple("image_std")), boolean(WHERE, values, "include_top")};
    if (affine.offset && !affine.factor)
        throw ConfigurationError(WHERE + ": rescale_offset is true without a rescale_factor; set both or neither");
    if (affine.std.has_value() != (affine.mean.has_value() || affine.include_top))
        throw ConfigurationError(WHERE + ": image_std is needed if and only if image_mean or include_top is set");
    return affine;
}

} // namespace

Preprocessing Preprocessing::from_json(const Json &values) {
    check_keys(values);
    Preprocessing found{};
    found.size =
        optional(values, "size", [](const Json &value) { return SizeRule::from_json(WHERE + ": size", value); });
    const auto resample = optional(values, "resample", [&](const Json &) {
        return static_cast<Filter>(integer(WHERE, values, "resample", 0, FILTERS - 1));
    });
    found.resample = resample.value_or(Filter::nearest);
    const auto crop = optional(values, "crop_size",
                               [](const Json &value) { return SizeRule::from_json(WHERE + ": crop_size", value); });
    if (crop && !crop->fixed())
        throw ConfigurationError(WHERE + ": crop_size needs a height and a width");
    if (crop)
        found.crop_size = crop->target({1, 1});
    const Affine affine = read_affine(values);
    if (found.size.has_value() != resample.has_value())
        throw ConfigurationError(WHERE + ": size without resample, or the reverse; set both or neither");
    if (!found.crop_size && !(found.size && found.size->fixed()))
        throw ConfigurationError(WHERE +
                                 ": the output size depends on the image; set do_center_crop and crop_size, or a "
                                 "size with height and width");
    for (std::size_t channel = 0; channel < 3; ++channel)
        for (int level = 0; level < 256; ++level) {
            const float value = affine.value(level, channel);
            if (!std::isfinite(value))
                throw ConfigurationError(WHERE + ": rescale_factor, image_mean and image_std give values that are not "
                                                 "finite in float32; is an image_std zero?");
            found.table[channel][static_cast<std::size_t>(level)] = value;
        }
    return found;
}

std::vector<float> Preprocessing::normalize(const std::vector<std::uint8_t> &pixels, std::size_t rows) const {
    const std::size_t area = pixels_height() * pixels_width();
    std::vector<float> values(rows * 3 * area);
    float *out = values.data();
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t channel = 0; channel < 3; ++channel) {
            const std::uint8_t *pixel = &pixels[row * 3 * area + channel];
            for (std::size_t i = 0; i < area; ++i)
                *out++ = table[channel][pixel[3 * i]];
        }
    return values;
}

} // namespace align
