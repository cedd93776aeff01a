#include "image_size.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "errors.hpp"
#include "json_values.hpp"

namespace align {

namespace {

constexpr std::int64_t MAX_SIDE = 8192; // pixels; limits the output of one image to 200 MB

// Python's int(): towards zero. No image is as large as the largest value.
std::size_t truncated(double side) {
    constexpr double LARGEST = 1e15;
    return static_cast<std::size_t>(std::min(side, LARGEST));
}

} // namespace

SizeRule SizeRule::from_json(const std::string &where, const Json &value) {
    as_object(where, value);
    const auto side = [&](const char *key) { return static_cast<double>(integer(where, value, key, 1, MAX_SIDE)); };
    const auto has = [&](const char *first, const char *second) {
        return value.size() == 2 && value.contains(first) && value.contains(second);
    };
    if (has("height", "width"))
        return {Kind::height_width, side("height"), side("width")};
    if (value.size() == 1 && value.contains("shortest_edge"))
        return {Kind::shortest_edge, side("shortest_edge"), 0};
    if (has("shortest_edge", "longest_edge"))
        return {Kind::shortest_longest, side("shortest_edge"), side("longest_edge")};
    if (has("max_height", "max_width"))
        return {Kind::max_height_width, side("max_height"), side("max_width")};
    throw ConfigurationError(where + " has other keys than height+width or shortest_edge or shortest_edge+longest_edge "
                                     "or max_height+max_width");
}

ImageSize SizeRule::target(ImageSize image) const {
    const auto height = static_cast<double>(image.height), width = static_cast<double>(image.width);
    const double shortest = std::min(height, width), longest = std::max(height, width);
    const auto size = [](double rows, double columns) { return ImageSize{truncated(rows), truncated(columns)}; };
    switch (kind_) {
    case Kind::height_width:
        return size(first_, second_);
    case Kind::shortest_edge: { // transformers.image_transforms.get_resize_output_image_size
        const double other = first_ * longest / shortest;
        return width <= height ? size(other, first_) : size(first_, other);
    }
    case Kind::shortest_longest: { // transformers.image_transforms.get_size_with_aspect_ratio, step by step
        double exact = first_, rounded = first_;
        if (longest / shortest * first_ > second_) {
            exact = second_ * shortest / longest;
            rounded = std::nearbyint(exact); // half to even, as Python
        }
        if (shortest == rounded)
            return image;
        return width < height ? size(exact * height / width, rounded) : size(rounded, exact * width / height);
    }
    case Kind::max_height_width: // transformers.image_utils.get_image_size_for_max_height_width
        break;
    }
    const double scale = std::min(first_ / height, second_ / width);
    return size(height * scale, width * scale);
}

} // namespace align
