// Devices: one table of what runs graphs on each of them. A new backend is a row there and its module.
#pragma once

#include <string>

namespace align {

// A device is the name of a backend, on a GPU with the index of one: "cuda" is "cuda:0".
struct Device {
    std::string name; // as it was asked for
    int gpu = 0;
    bool on_cpu = false;
    std::string target; // the graphs that were built for this target are preferred; those for any target run too
};

// Reads the name of a device. Throws ConfigurationError where there is no such device, BackendUnavailableError for one
// that only the Python runtime has.
Device parse_device(const std::string &name);

} // namespace align
