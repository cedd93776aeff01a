// The size that an image is resized to, computed from its own size with the truncations of transformers 5.23.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "json.hpp"

namespace align {

struct ImageSize {
    std::size_t height, width; // pixels
};

// A rule and its values in pixels.
class SizeRule {
public:
    // Reads an object such as {"height": 346, "width": 346}. Throws ConfigurationError for another set of keys, or a
    // value that is not an integer from 1 to 8192.
    static SizeRule from_json(const std::string &where, const Json &value);

    // Whether every image is resized to the same size.
    bool fixed() const { return kind_ == Kind::height_width; }

    // The size that an image is resized to; a side may be 0 for an extreme aspect ratio, or very large.
    ImageSize target(ImageSize image) const;

private:
    enum class Kind { height_width, shortest_edge, shortest_longest, max_height_width };

    SizeRule(Kind kind, double first, double second) : kind_(kind), first_(first), second_(second) {}

    Kind kind_;
    double first_, second_; // integers
};

} // namespace align
