#include "session_runner.hpp"

#include <algorithm>
#include <memory>

#include "errors.hpp"
#include "processors.hpp"

namespace align {

namespace {

constexpr int LOG_ERRORS_ONLY = 3; // warnings about graph rewrites are of no use to the user of a bundle

// A thread that waits for the next operator spins so long before it sleeps. To wake it takes longer than many an
// operator. Before the version that has this limit, threads would spin for tens of milliseconds, and take cores from
// everything else.
constexpr const char *SPIN_MICROSECONDS = "1000";
constexpr unsigned BOUNDED_SPINNING_API = 26;

} // namespace

OrtOwnedSessionOptions session_options(const OnnxRuntime &runtime) {
    OrtOwnedSessionOptions options(runtime);
    const OrtApi &api = runtime.api();
    runtime.check(api.CreateSessionOptions(options.out()));
    runtime.check(api.SetSessionLogSeverityLevel(options.get(), LOG_ERRORS_ONLY));
    // This rewrite quantizes a float bias to int32 between DequantizeLinear and QuantizeLinear. In an FP16 graph it
    // computes the quantized values in FP16, where those above 65504 become infinite.
    runtime.check(api.AddSessionConfigEntry(options.get(), "optimization.disable_specified_optimizers",
                                            "WeightBiasQuantization"));
    return options;
}

std::string output_of(const OnnxRuntime &runtime, OrtSession *session, const std::string &file) {
    const OrtApi &api = runtime.api();
    std::size_t count = 0;
    runtime.check(api.SessionGetOutputCount(session, &count));
    if (count != 1)
        throw BundleError(file + " has " + std::to_string(count) +
                          " outputs, expected one; export the checkpoint again");
    OrtAllocator *allocator = nullptr;
    char *name = nullptr;
    runtime.check(api.GetAllocatorWithDefaultOptions(&allocator));
    runtime.check(api.SessionGetOutputName(session, 0, allocator, &name));
    const auto release = [&](char *text) { allocator->Free(allocator, text); };
    const std::unique_ptr<char, decltype(release)> owned(name, release);
    return owned.get();
}

const float *checked_output(const OnnxRuntime &runtime, const OrtValue *output, const Answer &answer,
                            const std::string &file) {
    const OrtApi &api = runtime.api();
    int is_tensor = 0;
    runtime.check(api.IsTensor(output, &is_tensor));
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::vector<std::int64_t> shape;
    if (is_tensor != 0) {
        OrtOwnedShape info(runtime);
        std::size_t dimensions = 0;
        runtime.check(api.GetTensorTypeAndShape(output, info.out()));
        runtime.check(api.GetTensorElementType(info.get(), &type));
        runtime.check(api.GetDimensionsCount(info.get(), &dimensions));
        shape.resize(dimensions);
        runtime.check(api.GetDimensions(info.get(), shape.data(), dimensions));
    }
    const std::vector<std::int64_t> expected{static_cast<std::int64_t>(answer.rows),
                                             static_cast<std::int64_t>(answer.dim)};
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape != expected)
        throw BundleError(file + " returns type " + std::to_string(type) + " " + shown_shape(shape) +
                          ", expected float32 " + shown_shape(expected) +
                          "; it is not a graph of this bundle, export the checkpoint again");
    void *values = nullptr;
    runtime.check(api.GetTensorMutableData(const_cast<OrtValue *>(output), &values)); // GetTensorData is of 1.23
    return static_cast<const float *>(values);
}

ONNXTensorElementDataType onnx_type(ElementType type) {
    return type == ElementType::uint8   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
           : type == ElementType::int64 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
                                        : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

SessionRunner::SessionRunner(const OnnxRuntime &runtime, const std::string &file, std::optional<int> threads,
                             const Configure &configure)
    : runtime_(runtime), file_(file), session_(runtime), memory_(runtime) {
    const OrtApi &api = runtime.api();
    check_startable((threads ? *threads : available_cores()) - 1); // beside the caller's own
    try {
        const OrtOwnedSessionOptions options = session_options(runtime);
        const auto set = [&](const char *key, const char *value) {
            runtime.check(api.AddSessionConfigEntry(options.get(), key, value));
        };
        // Without VNNI, sums of uint8 × int8 products saturate at 16 bits. Exact kernels take 1.7 times as long, also
        // on processors with VNNI, which do not need them.
        set("session.x64quantprecision", has_vnni() ? "0" : "1");
        const bool bounded = !configure && runtime.api_of(BOUNDED_SPINNING_API) != nullptr;
        set("session.intra_op.allow_spinning", bounded ? "1" : "0");
        set("session.intra_op.spin_duration_us", SPIN_MICROSECONDS);
        const int count = threads ? *threads : limited_cores().value_or(0); // 0: one for each physical core
        runtime.check(api.SetIntraOpNumThreads(options.get(), count));
        if (configure)
            configure(options.get());
        runtime.check(api.CreateSession(runtime.environment(), file.c_str(), options.get(), session_.out()));
        runtime.check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.out()));
    } catch (const OrtFailure &failure) {
        if (failure.out_of_memory())
            throw_out_of_memory("load " + file);
        throw BundleError("ONNX Runtime cannot load " + file + ": " + failure.what());
    }
    output_ = output_of(runtime, session_.get(), file);
}

void SessionRunner::run(const std::vector<Input> &inputs, const Answer &answer) {
    const OrtApi &api = runtime_.api();
    try {
        std::vector<const char *> names;
        std::vector<OrtOwnedValue> owned;
        std::vector<const OrtValue *> values;
        for (const Input &input : inputs) {
            names.push_back(input.name);
            owned.emplace_back(runtime_);
            runtime_.check(api.CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void *>(input.data),
                                                              input.bytes(), input.shape.data(), input.shape.size(),
                                                              onnx_type(input.type), owned.back().out()));
            values.push_back(owned.back().get());
        }
        OrtOwnedValue output(runtime_);
        const char *name = output_.c_str();
        runtime_.check(
            api.Run(session_.get(), nullptr, names.data(), values.data(), values.size(), &name, 1, output.out()));
        const float *rows = checked_output(runtime_, output.get(), answer, file_);
        std::copy_n(rows, answer.rows * answer.dim, answer.values);
    } catch (const OrtFailure &failure) {
        if (failure.out_of_memory())
            throw_out_of_memory("run inputs of shape " + shapes_of(inputs));
        throw InputError("the graph does not take inputs of shape " + shapes_of(inputs) + ": " + failure.what());
    }
}

} // namespace align
