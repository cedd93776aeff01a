// ONNX Runtime's execution provider for NVIDIA GPUs: its options, and the libraries that it needs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "device_memory.hpp"
#include "onnxruntime_library.hpp"

namespace align {

// An execution provider of ONNX Runtime and the device of its tensors. Tests run this code with that of the CPU.
struct Provider {
    std::string memory_name;
    std::unique_ptr<DeviceMemory> memory;
    int gpu;
    // Adds it to the options of a session, with CUDA graphs or without. Throws BackendUnavailableError where it cannot
    // start.
    std::function<void(OrtSessionOptions *options, bool graphs)> append_to;

    // CUDA on the GPU with the index `gpu`, for graphs of `variant`. Throws BackendUnavailableError where `runtime`
    // cannot use it.
    static Provider cuda(const OnnxRuntime &runtime, int gpu, const std::string &variant);

    // CUDA's options for graphs of `variant`.
    static std::map<std::string, std::string> options_of(const std::string &variant);
};

} // namespace align
