// The entry of one graph in a bundle's manifest. All of it is checked; what the runtime does not use is not kept.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "json.hpp"

namespace align {

// Names of towers and targets, in the order in which errors list them.
constexpr const char *VISION = "vision", *TEXT = "text";
constexpr const char *ANY_TARGET = "any", *CPU_TARGET = "cpu", *GPU_TARGET = "gpu";

// One ONNX graph: a tower in one variant (precision) for one target.
struct Graph {
    std::string tower, variant, target;
    std::string file;                // path inside the bundle
    std::optional<std::string> data; // path of its external weights
    bool float_pixels = false;       // whether it takes normalized pixels, float32 (batch, 3, height, width)

    // The variant with the suffix "_cpu" if the target is a CPU; unique within a tower.
    std::string exact_variant() const { return target == CPU_TARGET ? variant + "_" + target : variant; }

    // Paths of the graph and, if it has any, its external data.
    std::vector<std::string> files() const;

    // Reads an entry that errors call `where`. Throws ConfigurationError.
    static Graph from_json(const Json &values, const std::string &where);
};

} // namespace align
