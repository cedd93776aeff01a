#include "cuda_runner.hpp"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <mutex>

#include "cpu_runner.hpp"
#include "errors.hpp"
#include "processors.hpp"

namespace align {

namespace {

constexpr const char *CUDA_PROVIDER = "CUDAExecutionProvider";
constexpr const char *INSTALL =
    "install a build of ONNX Runtime for CUDA, e.g. the wheel onnxruntime-gpu, and CUDA and "
    "cuDNN where the dynamic loader finds them";
constexpr const char *NO_SUCH_GPU = "invalid device ordinal";
constexpr const char *NOT_CAPTURED = "cannot use the graph capture feature";

// ONNX Runtime captures CUDA graphs in the mode cudaStreamCaptureModeGlobal: while one thread captures, copies and
// allocations of all others in the process fail, and the capture with them. So a capture runs alone, and all else that
// calls CUDA shares this mutex.
std::shared_mutex &cuda_calls() {
    static auto &mutex = *new std::shared_mutex; // stays until the process has ended, as threads may
    return mutex;
}

bool mentions(const OrtFailure &failure, const char *words) {
    return std::strstr(failure.what(), words) != nullptr;
}

// The message without the place in ONNX Runtime's source that it begins with.
std::string reason_of(const OrtFailure &failure) {
    const std::string text = failure.what();
    for (const char *start : {"Failed to load library", "CUDA failure", "Invalid device ID"})
        if (const std::size_t found = text.find(start); found != text.npos)
            return text.substr(found, text.find(" ; GPU=", found) - found);
    return text;
}

bool has_provider(const OnnxRuntime &runtime, const char *name) {
    char **names = nullptr;
    int count = 0;
    runtime.check(runtime.api().GetAvailableProviders(&names, &count));
    const bool found = std::any_of(names, names + count, [&](const char *one) { return std::strcmp(one, name) == 0; });
    runtime.check(runtime.api().ReleaseAvailableProviders(names, count));
    return found;
}

void append_cuda(const OnnxRuntime &runtime, OrtSessionOptions *session_options, const Provider &provider,
                 bool graphs) {
    const OrtApi &api = runtime.api();
    const std::string device = std::to_string(provider.gpu);
    std::vector<const char *> keys{"device_id", "enable_cuda_graph"}, values{device.c_str(), graphs ? "1" : "0"};
    for (const auto &[key, value] : provider.options) {
        keys.push_back(key.c_str());
        values.push_back(value.c_str());
    }
    try {
        OrtCUDAProviderOptionsV2 *options = nullptr;
        runtime.check(api.CreateCUDAProviderOptions(&options));
        const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> owned(
            options, api.ReleaseCUDAProviderOptions);
        runtime.check(api.UpdateCUDAProviderOptions(options, keys.data(), values.data(), keys.size()));
        runtime.check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(session_options, options));
    } catch (const OrtFailure &failure) {
        throw BackendUnavailableError("ONNX Runtime's CUDA provider cannot start (" + reason_of(failure) +
                                      "); check nvidia-smi and that the driver is new enough, and " + INSTALL);
    }
}

// `rows` rows of `from`, each of `width` bytes, padded to `wide` bytes with zeros, and to `batch` rows with copies of
// the last one.
std::vector<char> padded(const char *from, std::size_t rows, std::size_t width, std::size_t batch, std::size_t wide) {
    std::vector<char> result(batch * wide);
    for (std::size_t row = 0; row < batch; ++row)
        std::memcpy(&result[row * wide], from + std::min(row, rows - 1) * width, width);
    return result;
}

} // namespace

// A session with inputs and output of one shape at fixed addresses, which a CUDA graph requires.
struct CudaRunner::Slot {
    Slot(const OnnxRuntime &runtime, OrtSession *of)
        : session(of), binding(runtime), run_options(runtime), output(runtime) {}

    OrtSession *session;
    bool captured = false; // or run once, if the graph runs without CUDA graphs
    OrtOwnedBinding binding;
    OrtOwnedRunOptions run_options;
    std::vector<OrtOwnedValue> inputs;
    OrtOwnedValue output;
};

// Convolutions in NHWC, the layout of tensor cores, with the fastest of all algorithms whatever workspace it needs.
// FP32 without TF32, since the parity gate compares full float32. Without it, ONNX Runtime keeps the convolutions of
// every precision off the tensor cores: half precision needs them, and its values have no more digits than TF32's.
std::map<std::string, std::string> Provider::options_of(const std::string &variant) {
    return {
        {"prefer_nhwc", "1"},
        {"use_tf32", variant == "fp32" ? "0" : "1"},
        {"fuse_conv_bias", "1"},
        {"cudnn_conv_algo_search", "EXHAUSTIVE"},
        {"cudnn_conv_use_max_workspace", "1"},
    };
}

Provider Provider::cuda(const OnnxRuntime &runtime, int gpu, const std::string &variant) {
    if (!has_provider(runtime, CUDA_PROVIDER))
        throw BackendUnavailableError("the ONNX Runtime " + runtime.version() + " in " + runtime.path() + " has no " +
                                      CUDA_PROVIDER + "; " + INSTALL);
    std::unique_ptr<DeviceMemory> memory = DeviceMemory::of_cuda(gpu);
    if (dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL) == nullptr) // loaded by the provider at its first convolution
        throw BackendUnavailableError("cuDNN cannot be loaded (" + loader_error() + "); " + INSTALL);
    return {CUDA_PROVIDER, "Cuda", std::move(memory), gpu, options_of(variant)};
}

CudaRunner::CudaRunner(const OnnxRuntime &runtime, const std::string &file, Buckets buckets, std::size_t dim,
                       Provider provider)
    : cuda_use_(cuda_calls()), runtime_(runtime), file_(file), buckets_(std::move(buckets)), dim_(dim),
      provider_(std::move(provider)) {
    OrtSession *session = sessions_.emplace(shared_by(buckets_.batches[0]), open()).first->second.session.get();
    output_ = output_of(runtime_, session, file_);
    check_output(session);
    check_startable(1);
    worker_.run(1, [](std::size_t) {}); // starts its thread: later, there may be none
    cuda_use_.unlock();
}

CudaRunner::~CudaRunner() {
    cuda_use_.lock(); // until the other members are destroyed
}

std::size_t CudaRunner::shared_by(std::size_t batch) const {
    return buckets_.lengths.empty() ? batch : 0;
}

CudaRunner::Session CudaRunner::open() const {
    Session opened{OrtOwnedSession(runtime_), OrtOwnedAllocator(runtime_)};
    try {
        try {
            opened.session = load(true);
        } catch (const OrtFailure &failure) {
            if (!mentions(failure, NOT_CAPTURED))
                throw;
            opened.session = load(false); // a node is not on the GPU, which ONNX Runtime knows after loading
        }
        OrtOwnedMemoryInfo memory(runtime_);
        runtime_.check(runtime_.api().CreateMemoryInfo(provider_.memory_name.c_str(), OrtDeviceAllocator, provider_.gpu,
                                                       OrtMemTypeDefault, memory.out()));
        runtime_.check(runtime_.api().CreateAllocator(opened.session.get(), memory.get(), opened.allocator.out()));
    } catch (const OrtFailure &failure) {
        if (mentions(failure, NO_SUCH_GPU))
            throw BackendUnavailableError("CUDA sees no GPU with the index " + std::to_string(provider_.gpu) +
                                          "; see nvidia-smi and CUDA_VISIBLE_DEVICES");
        if (failure.out_of_memory())
            throw DeviceError("the GPU has too little free memory for " + file_ + " (" + reason_of(failure) +
                              "); see nvidia-smi");
        throw BundleError("ONNX Runtime cannot load " + file_ + " on the GPU: " + failure.what());
    }
    return opened;
}

OrtOwnedSession CudaRunner::load(bool graphs) const {
    OrtOwnedSession session(runtime_);
    const OrtOwnedSessionOptions options = session_options(runtime_);
    if (provider_.name == CUDA_PROVIDER)
        append_cuda(runtime_, options.get(), provider_, graphs);
    runtime_.check(runtime_.api().CreateSession(runtime_.environment(), file_.c_str(), options.get(), session.out()));
    return session;
}

// The memory of the output is allocated before a run, so its type and width must be known.
void CudaRunner::check_output(OrtSession *session) const {
    const OrtApi &api = runtime_.api();
    OrtOwned<OrtTypeInfo, &OrtApi::ReleaseTypeInfo> info(runtime_);
    const OrtTensorTypeAndShapeInfo *tensor = nullptr;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::vector<std::int64_t> shape;
    std::size_t dimensions = 0;
    runtime_.check(api.SessionGetOutputTypeInfo(session, 0, info.out()));
    runtime_.check(api.CastTypeInfoToTensorInfo(info.get(), &tensor));
    if (tensor != nullptr) {
        runtime_.check(api.GetTensorElementType(tensor, &type));
        runtime_.check(api.GetDimensionsCount(tensor, &dimensions));
        shape.resize(dimensions);
        runtime_.check(api.GetDimensions(tensor, shape.data(), dimensions));
    }
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || dimensions != 2 || shape[1] != static_cast<std::int64_t>(dim_))
        throw BundleError(file_ + " returns type " + std::to_string(type) + " " + shown_shape(shape) +
                          ", expected float32 (batch, " + std::to_string(dim_) + "); export the checkpoint again");
}

void CudaRunner::run(const std::vector<Input> &inputs, const Answer &answer) {
    worker_.run(1, [&](std::size_t) { run_here(inputs, answer); });
}

void CudaRunner::run_here(const std::vector<Input> &inputs, const Answer &answer) {
    const std::size_t tokens = static_cast<std::size_t>(inputs[0].shape[1]);
    const std::size_t length = buckets_.lengths.empty() ? 0 : buckets_.length(tokens);
    try {
        provider_.memory->enter();
        for (const Piece &piece : buckets_.pieces(answer.rows))
            run_piece(piece, length, inputs, answer.values + piece.start * dim_);
    } catch (const DeviceError &) {
        throw;
    } catch (const std::runtime_error &failure) { // of ONNX Runtime, or of a session that cannot be opened
        throw DeviceError("the graph failed on inputs of shape " + shapes_of(inputs) + ": " + failure.what());
    }
}

void CudaRunner::run_piece(const Piece &piece, std::size_t length, const std::vector<Input> &inputs, float *out) {
    const OrtApi &api = runtime_.api();
    const Shape shape{piece.batch, length};
    const auto known = slots_.find(shape);
    std::unique_lock alone(cuda_calls(), std::defer_lock);
    std::shared_lock shared(cuda_calls(), std::defer_lock);
    if (known != slots_.end() && known->second->captured)
        shared.lock();
    else
        alone.lock();
    Slot &used = slot(shape, inputs);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Input &input = inputs[i];
        const std::size_t width = input.bytes() / static_cast<std::size_t>(input.shape[0]);
        const std::size_t wide = length == 0 ? width : width / static_cast<std::size_t>(input.shape[1]) * length;
        const char *from = static_cast<const char *>(input.data) + piece.start * width;
        void *device = nullptr;
        runtime_.check(api.GetTensorMutableData(used.inputs[i].get(), &device));
        if (piece.count == piece.batch && width == wide)
            provider_.memory->to_device(device, from, piece.count * width);
        else {
            const std::vector<char> filled = padded(from, piece.count, width, piece.batch, wide);
            provider_.memory->to_device(device, filled.data(), filled.size());
        }
    }
    runtime_.check(api.RunWithBinding(used.session, used.run_options.get(), used.binding.get()));
    void *device = nullptr;
    runtime_.check(api.GetTensorMutableData(used.output.get(), &device));
    provider_.memory->to_host(out, device, piece.count * dim_ * sizeof(float));
    used.captured = true;
}

CudaRunner::Slot &CudaRunner::slot(const Shape &shape, const std::vector<Input> &inputs) {
    const auto found = slots_.find(shape);
    if (found != slots_.end())
        return *found->second;
    const OrtApi &api = runtime_.api();
    auto of = sessions_.find(shared_by(shape.first));
    if (of == sessions_.end())
        of = sessions_.emplace(shared_by(shape.first), open()).first;
    const Session &session = of->second;
    auto made = std::make_unique<Slot>(runtime_, session.session.get());
    runtime_.check(api.CreateIoBinding(made->session, made->binding.out()));
    for (const Input &input : inputs) {
        std::vector<std::int64_t> sizes = input.shape;
        sizes[0] = static_cast<std::int64_t>(shape.first);
        if (shape.second != 0)
            sizes[1] = static_cast<std::int64_t>(shape.second);
        made->inputs.push_back(allocate(session, sizes, input.type));
        runtime_.check(api.BindInput(made->binding.get(), input.name, made->inputs.back().get()));
    }
    made->output = allocate(session, {static_cast<std::int64_t>(shape.first), static_cast<std::int64_t>(dim_)},
                            ElementType::float32);
    runtime_.check(api.BindOutput(made->binding.get(), output_.c_str(), made->output.get()));
    runtime_.check(api.CreateRunOptions(made->run_options.out()));
    const std::string id = std::to_string(slots_.size() + 1); // 0 is shared by all shapes
    runtime_.check(api.AddRunConfigEntry(made->run_options.get(), "gpu_graph_id", id.c_str()));
    return *slots_.emplace(shape, std::move(made)).first->second;
}

OrtOwnedValue CudaRunner::allocate(const Session &session, const std::vector<std::int64_t> &shape,
                                   ElementType type) const {
    OrtOwnedValue value(runtime_);
    runtime_.check(runtime_.api().CreateTensorAsOrtValue(session.allocator.get(), shape.data(), shape.size(),
                                                         onnx_type(type), value.out()));
    return value;
}

} // namespace align
