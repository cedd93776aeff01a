#include "cuda_provider.hpp"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <vector>

#include "errors.hpp"

namespace align {

namespace {

constexpr const char *CUDA_PROVIDER = "CUDAExecutionProvider";
constexpr const char *INSTALL =
    "install a build of ONNX Runtime for CUDA, e.g. the wheel onnxruntime-gpu, and CUDA and "
    "cuDNN where the dynamic loader finds them";

// No TF32 in FP32, since the parity gate compares full float32. Without it, ONNX Runtime keeps the convolutions of
// every precision off the tensor cores, which FP16 needs; its values have no more digits than TF32's. NHWC is the
// layout of tensor cores; in it, ONNX Runtime 1.31 refuses depthwise convolutions whose weights are dequantized. Biases
// are added by a kernel of their own: to fuse one into a convolution, cuDNN compiles a kernel for each of them. Its
// heuristic chooses the algorithms: "EXHAUSTIVE" gets ready later and is not faster.
constexpr struct {
    const char *key, *fp32, *fp16, *int8; // other variants have the options of FP32
} OPTIONS[] = {
    {"prefer_nhwc", "1", "1", "0"},
    {"use_tf32", "0", "1", "1"},
    {"fuse_conv_bias", "0", "0", "0"},
    {"cudnn_conv_algo_search", "HEURISTIC", "HEURISTIC", "HEURISTIC"},
    {"cudnn_conv_use_max_workspace", "1", "1", "1"},
};

bool has_provider(const OnnxRuntime &runtime, const char *name) {
    char **names = nullptr;
    int count = 0;
    runtime.check(runtime.api().GetAvailableProviders(&names, &count));
    const bool found = std::any_of(names, names + count, [&](const char *one) { return std::strcmp(one, name) == 0; });
    runtime.check(runtime.api().ReleaseAvailableProviders(names, count));
    return found;
}

void append_cuda(const OnnxRuntime &runtime, OrtSessionOptions *session_options,
                 const std::map<std::string, std::string> &options) {
    const OrtApi &api = runtime.api();
    std::vector<const char *> keys, values;
    for (const auto &[key, value] : options) {
        keys.push_back(key.c_str());
        values.push_back(value.c_str());
    }
    try {
        OrtCUDAProviderOptionsV2 *made = nullptr;
        runtime.check(api.CreateCUDAProviderOptions(&made));
        const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> owned(
            made, api.ReleaseCUDAProviderOptions);
        runtime.check(api.UpdateCUDAProviderOptions(made, keys.data(), values.data(), keys.size()));
        runtime.check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(session_options, made));
    } catch (const OrtFailure &failure) {
        throw BackendUnavailableError(std::string("ONNX Runtime's CUDA provider cannot start (") + failure.what() +
                                      "); check nvidia-smi and that the driver is new enough, and " + INSTALL);
    }
}

} // namespace

std::map<std::string, std::string> Provider::options_of(const std::string &variant) {
    std::map<std::string, std::string> options;
    for (const auto &[key, fp32, fp16, int8] : OPTIONS)
        options[key] = variant == "fp16" ? fp16 : variant == "int8" ? int8 : fp32;
    return options;
}

Provider Provider::cuda(const OnnxRuntime &runtime, int gpu, const std::string &variant) {
    if (!has_provider(runtime, CUDA_PROVIDER))
        throw BackendUnavailableError("the ONNX Runtime " + runtime.version() + " in " + runtime.path() + " has no " +
                                      CUDA_PROVIDER + "; " + INSTALL);
    std::unique_ptr<DeviceMemory> memory = DeviceMemory::of_cuda(gpu);
    if (dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL) == nullptr) // loaded by the provider at its first convolution
        throw BackendUnavailableError("cuDNN cannot be loaded (" + loader_error() + "); " + INSTALL);
    std::map<std::string, std::string> options = options_of(variant);
    options["device_id"] = std::to_string(gpu);
    return {"Cuda", std::move(memory), gpu, [&runtime, options](OrtSessionOptions *session_options, bool graphs) {
                std::map<std::string, std::string> all = options;
                all["enable_cuda_graph"] = graphs ? "1" : "0";
                append_cuda(runtime, session_options, all);
            }};
}

} // namespace align
