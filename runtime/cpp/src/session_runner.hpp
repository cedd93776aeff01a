// Graphs through ONNX Runtime, on the CPU or on what another provider than the CPU's computes with.
#pragma once

#include <functional>
#include <optional>

#include "onnxruntime_library.hpp"
#include "runner.hpp"

namespace align {

// One graph in one session, which any number of threads may share.
class SessionRunner : public Runner {
public:
    // Adds another provider than the CPU's to the options of a session.
    using Configure = std::function<void(OrtSessionOptions *)>;

    // Loads the ONNX file `file`. `threads` of one run; all cores without it. Throws BundleError where ONNX Runtime
    // cannot load it, DeviceError where there is not enough memory or its threads cannot be started.
    SessionRunner(const OnnxRuntime &runtime, const std::string &file, std::optional<int> threads,
                  const Configure &configure = {});

    void run(const std::vector<Input> &inputs, const Answer &answer) override;

private:
    const OnnxRuntime &runtime_;
    std::string file_, output_;
    OrtOwnedSession session_;
    OrtOwnedMemoryInfo memory_;
};

// Options of a session that every backend has: errors alone are logged, and no rewrite that makes biases infinite.
OrtOwnedSessionOptions session_options(const OnnxRuntime &runtime);

// Name of the only output of `session`. Throws BundleError where there is not one.
std::string output_of(const OnnxRuntime &runtime, OrtSession *session, const std::string &file);

// The values of `output`, which must be float32 (rows, dim) on the CPU. Throws BundleError.
const float *checked_output(const OnnxRuntime &runtime, const OrtValue *output, const Answer &answer,
                            const std::string &file);

ONNXTensorElementDataType onnx_type(ElementType type);

} // namespace align
