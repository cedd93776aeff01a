// Devices: one table of what runs graphs on each of them. A new backend is a row there and its module.
#pragma once

#include <string>

namespace align {

enum class Backend { cpu, openvino, cuda, tensorrt_rtx };

// A device is the name of a backend, on a GPU with the index of one: "cuda" is "cuda:0".
struct Device {
    std::string name; // as it was asked for
    Backend backend = Backend::cpu;
    int index = 0;
    bool on_cpu = false;
    std::string target; // the graphs that were built for this target are preferred; those for any target run too

    // The variant of the graphs that are computed in `precision`. Throws ConfigurationError where the device computes
    // in no such precision.
    std::string variant_of(const std::string &precision) const;
};

// Reads the name of a device. Throws ConfigurationError where there is no such device, BackendUnavailableError for one
// that only the Python runtime has.
Device parse_device(const std::string &name);

} // namespace align
