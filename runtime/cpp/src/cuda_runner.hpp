// Graphs on an NVIDIA GPU through ONNX Runtime.
#pragma once

#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "buckets.hpp"
#include "capture.hpp"
#include "cuda_provider.hpp"
#include "onnxruntime_library.hpp"
#include "runner.hpp"
#include "workers.hpp"

namespace align {

using OrtOwnedAllocator = OrtOwned<OrtAllocator, &OrtApi::ReleaseAllocator>;
using OrtOwnedBinding = OrtOwned<OrtIoBinding, &OrtApi::ReleaseIoBinding>;
using OrtOwnedRunOptions = OrtOwned<OrtRunOptions, &OrtApi::ReleaseRunOptions>;

// One graph on the GPU, which any number of threads may share. A thread of its own runs every batch: the GPU runs one
// at a time, and ONNX Runtime captures CUDA graphs per thread. Images have a session for each batch size: a convolution
// keeps the plan of its last shape only, makes it anew for another, and the CUDA graphs that were captured with the old
// one then compute something else. All sessions are opened at once, so that they read the same file.
class CudaRunner : public Runner {
public:
    // Loads the ONNX file `file`, which answers with rows of `dim` floats, to run in the shapes of `buckets`. Throws
    // BackendUnavailableError where the GPU or a library is missing, DeviceError where there is not enough memory,
    // BundleError where the file cannot be loaded.
    CudaRunner(const OnnxRuntime &runtime, const std::string &file, Buckets buckets, std::size_t dim,
               Provider provider);
    ~CudaRunner() override;

    void run(const std::vector<Input> &inputs, const Answer &answer) override;
    std::vector<std::size_t> batches() const override { return buckets_.batches; }
    int in_flight() const override { return 2; } // one batch runs while the next one waits for it

private:
    struct Slot;
    struct Session {
        OrtOwnedSession session;
        OrtOwnedAllocator allocator;
    };
    using Shape = std::pair<std::size_t, std::size_t>; // batch and, for texts, length

    std::size_t shared_by(std::size_t batch) const; // the key of the session for `batch`
    Session open() const;
    OrtOwnedSession load(bool graphs) const;
    void check_output(OrtSession *session) const;
    Slot &slot(const Shape &shape, const std::vector<Input> &inputs);
    void run_here(const std::vector<Input> &inputs, const Answer &answer);
    void run_piece(const Piece &piece, std::size_t length, const std::vector<Input> &inputs, float *out);
    OrtOwnedValue allocate(const Session &session, const std::vector<std::int64_t> &shape, ElementType type) const;

    std::shared_lock<CaptureLock> cuda_use_; // held while the members below are made and destroyed
    const OnnxRuntime &runtime_;
    std::string file_, output_;
    Buckets buckets_;
    std::size_t dim_;
    Provider provider_;
    std::map<std::size_t, Session> sessions_;
    std::map<Shape, std::unique_ptr<Slot>> slots_;
    Workers worker_{1};
};

} // namespace align
