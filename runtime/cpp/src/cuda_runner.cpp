#include "cuda_runner.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "errors.hpp"
#include "processors.hpp"
#include "session_runner.hpp"

namespace align {

namespace {

constexpr const char *NO_SUCH_GPU = "invalid device ordinal";
constexpr const char *NOT_CAPTURED = "cannot use the graph capture feature";

bool mentions(const OrtFailure &failure, const char *words) {
    return std::strstr(failure.what(), words) != nullptr;
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

CudaRunner::CudaRunner(const OnnxRuntime &runtime, const std::string &file, Buckets buckets, std::size_t dim,
                       Provider provider)
    : cuda_use_(captures()), runtime_(runtime), file_(file), buckets_(std::move(buckets)), dim_(dim),
      provider_(std::move(provider)) {
    for (const std::size_t batch : buckets_.batches)
        if (sessions_.count(shared_by(batch)) == 0)
            sessions_.emplace(shared_by(batch), open());
    OrtSession *session = sessions_.begin()->second.session.get();
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
            throw DeviceError("the GPU has too little free memory for " + file_ + " (" + failure.what() +
                              "); see nvidia-smi");
        throw BundleError("ONNX Runtime cannot load " + file_ + " on the GPU: " + failure.what());
    }
    return opened;
}

OrtOwnedSession CudaRunner::load(bool graphs) const {
    OrtOwnedSession session(runtime_);
    const OrtOwnedSessionOptions options = session_options(runtime_);
    provider_.append_to(options.get(), graphs);
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
    } catch (const OrtFailure &failure) {
        throw DeviceError("the graph failed on inputs of shape " + shapes_of(inputs) + ": " + failure.what());
    }
}

void CudaRunner::run_piece(const Piece &piece, std::size_t length, const std::vector<Input> &inputs, float *out) {
    const OrtApi &api = runtime_.api();
    const Shape shape{piece.batch, length};
    const auto known = slots_.find(shape);
    std::unique_lock alone(captures(), std::defer_lock);
    std::shared_lock shared(captures(), std::defer_lock);
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
    const Session &session = sessions_.at(shared_by(shape.first));
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
