// Execution providers that are libraries of their own, which ONNX Runtime loads on request.
#pragma once

#include <map>
#include <string>

#include "onnxruntime_library.hpp"

namespace align {

// A plugin provider, and which of the devices that it offers compute graphs.
struct Plugin {
    const char *provider;    // its name in ONNX Runtime
    const char *library;     // as the dynamic loader finds it
    const char *key, *value; // an entry in the metadata of its devices; nullptr: all of them
    const char *install;     // what to install where it is missing
};

// One device of a plugin provider.
class PluginDevice {
public:
    // The device with the index `index` of `plugin`, from the library `path`; where that is empty, from that of the
    // environment variable ALIGN_PROVIDER_LIBRARY, or else from the one that the dynamic loader finds. It is loaded
    // once and stays until the process ends. Throws BackendUnavailableError where there is no such library or device.
    PluginDevice(const OnnxRuntime &runtime, const Plugin &plugin, const std::string &path, int index);

    // What the provider says of the device; "" where it does not name `key`.
    std::string metadata(const char *key) const;

    // Adds the provider with `options` to those of a session. An operator that it lacks is an error, and is not
    // computed by another provider. Throws BackendUnavailableError where it cannot start.
    void append_to(OrtSessionOptions *session_options, const std::map<std::string, std::string> &options) const;

private:
    const OnnxRuntime &runtime_;
    const Plugin &plugin_;
    const OrtEpDevice *device_ = nullptr;
};

} // namespace align
