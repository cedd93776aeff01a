// ONNX Runtime, found at run time. It is never linked: its library exports symbols with the version of its release, so
// a program that is linked with one release does not start with another.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

namespace align {

// A failure that ONNX Runtime reports, on one line.
struct OrtFailure : std::runtime_error {
    using std::runtime_error::runtime_error;

    // Whether memory ran out, for which ONNX Runtime has no code of its own.
    bool out_of_memory() const;
};

// What a message of ONNX Runtime says, on one line. Words of CUDA's libraries and of the dynamic loader stand in it
// behind a place in ONNX Runtime's source, which is left out.
std::string reason_of(const std::string &message);

// Why the dynamic loader could not load the last library that it was asked for.
std::string loader_error();

class OnnxRuntime {
public:
    // The library `path`; where it is empty that of the environment variable ALIGN_ONNXRUNTIME_LIBRARY, or else the one
    // that the dynamic loader finds. A library stays loaded until the process ends, since its threads do.
    // Throws BackendUnavailableError where there is none, or it is too old.
    static const OnnxRuntime &load(const std::string &path);

    const OrtApi &api() const { return *api_; }
    OrtEnv *environment() const { return environment_; }
    const std::string &path() const { return path_; }
    const std::string &version() const { return version_; }

    // Throws OrtFailure unless `status` is success; frees it.
    void check(OrtStatus *status) const;

    // The functions of a later version of the API than all need; nullptr where the library is older.
    const OrtApi *api_of(unsigned version) const;

private:
    OnnxRuntime(const std::string &path, void *library);

    std::string path_, version_;
    const OrtApiBase *base_ = nullptr;
    const OrtApi *api_ = nullptr;
    OrtEnv *environment_ = nullptr;
};

template <typename T> using OrtRelease = void(ORT_API_CALL *)(T *);

// Owns an object of ONNX Runtime's C API. `Release` is the member of OrtApi that frees it.
template <typename T, OrtRelease<T> OrtApi::*Release> class OrtOwned {
public:
    explicit OrtOwned(const OnnxRuntime &runtime) : runtime_(&runtime) {}
    OrtOwned(OrtOwned &&other) noexcept : runtime_(other.runtime_), object_(other.object_) { other.object_ = nullptr; }
    OrtOwned &operator=(OrtOwned &&other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~OrtOwned() { reset(); }

    T *get() const { return object_; }

    // Where a function of the API puts a new object.
    T **out() {
        reset();
        return &object_;
    }

private:
    void reset() {
        if (object_ != nullptr)
            (runtime_->api().*Release)(object_);
        object_ = nullptr;
    }

    const OnnxRuntime *runtime_;
    T *object_ = nullptr;
};

using OrtOwnedValue = OrtOwned<OrtValue, &OrtApi::ReleaseValue>;
using OrtOwnedSession = OrtOwned<OrtSession, &OrtApi::ReleaseSession>;
using OrtOwnedSessionOptions = OrtOwned<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>;
using OrtOwnedMemoryInfo = OrtOwned<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>;
using OrtOwnedShape = OrtOwned<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo>;

} // namespace align
