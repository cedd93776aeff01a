// Backends: what runs a graph on a device. devices.cpp lists the devices.
#pragma once

#include <memory>
#include <optional>

#include "bundle.hpp"
#include "load_options.hpp"
#include "runner.hpp"

namespace align {

// Loads `graph` of `bundle` from `file` onto the device of `options`, for `streams` runs side by side, each with
// `threads`; both are for CPUs. Throws BackendUnavailableError where a library or the device is missing, BundleError
// where the file cannot be loaded, DeviceError where there is not enough memory or threads cannot be started.
std::unique_ptr<Runner> open_graph(const Bundle &bundle, const Graph &graph, const std::string &file,
                                   const LoadOptions &options, std::optional<int> threads, int streams);

} // namespace align
