#include "backends.hpp"

#include "cuda_runner.hpp"
#include "errors.hpp"
#include "plugin_provider.hpp"
#include "processors.hpp"
#include "session_runner.hpp"

namespace align {

namespace {

constexpr Plugin OPENVINO{"OpenVINOExecutionProvider", "libonnxruntime_providers_openvino_plugin.so", "ov_device",
                          "CPU", "the wheel onnxruntime-ep-openvino"};
constexpr Plugin TENSORRT_RTX{"NvTensorRTRTXExecutionProvider", "libonnxruntime_providers_nv_tensorrt_rtx.so", nullptr,
                              nullptr, "ONNX Runtime's provider for TensorRT for RTX"};

// OpenVINO computes FP32 graphs in bfloat16 by default where the processor has it. Here the precision is always named.
std::string openvino_config(const PluginDevice &device, const std::string &precision, int threads, int streams) {
    const bool in_bfloat16 = precision.substr(0, 4) == "bf16";
    const std::string capabilities = " " + device.metadata("OPTIMIZATION_CAPABILITIES") + " ";
    if (in_bfloat16 && capabilities.find(" BF16 ") == capabilities.npos)
        throw BackendUnavailableError("precision is 'bf16', but this processor has no bfloat16 (avx512_bf16 or "
                                      "amx_bf16), and OpenVINO would compute in float32; open with precision 'fp32'");
    const Json config{{"INFERENCE_PRECISION_HINT", in_bfloat16 ? "bf16" : "f32"},
                      {"NUM_STREAMS", std::to_string(streams)},
                      {"INFERENCE_NUM_THREADS", std::to_string(streams * threads)},
                      // the other tower, streams and processes would be pinned to the same cores
                      {"ENABLE_CPU_PINNING", "NO"}};
    return Json{{"CPU", config}}.dump();
}

} // namespace

std::unique_ptr<Runner> open_graph(const Bundle &bundle, const Graph &graph, const std::string &file,
                                   const LoadOptions &options, std::optional<int> threads, int streams) {
    const OnnxRuntime &runtime = OnnxRuntime::load(options.onnxruntime_library);
    const Device &device = options.device;
    switch (device.backend) {
    case Backend::cuda:
        return std::make_unique<CudaRunner>(runtime, file, Buckets::of(graph, bundle.manifest().model),
                                            bundle.manifest().model.embedding_dim,
                                            Provider::cuda(runtime, device.index, graph.variant));
    case Backend::openvino: {
        const PluginDevice plugin(runtime, OPENVINO, options.provider_library, device.index);
        const std::string config =
            openvino_config(plugin, options.precision, threads ? *threads : available_cores(), streams);
        return std::make_unique<SessionRunner>(runtime, file, threads, [&](OrtSessionOptions *session) {
            plugin.append_to(session, {{"load_config", config}});
        });
    }
    case Backend::tensorrt_rtx: {
        const PluginDevice plugin(runtime, TENSORRT_RTX, options.provider_library, device.index);
        return std::make_unique<SessionRunner>(runtime, file, 1,
                                               [&](OrtSessionOptions *session) { plugin.append_to(session, {}); });
    }
    default:
        return std::make_unique<SessionRunner>(runtime, file, threads);
    }
}

} // namespace align
