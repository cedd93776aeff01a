#include "onnxruntime_library.hpp"

#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <vector>

#include "errors.hpp"
#include "foreign_text.hpp"

namespace align {

namespace {

constexpr unsigned LOWEST_API = 20; // of ONNX Runtime 1.20; the functions of an API stay for ever
constexpr const char *VARIABLE = "ALIGN_ONNXRUNTIME_LIBRARY";
constexpr const char *INSTALL =
    "install ONNX Runtime 1.20 or newer (the package libonnxruntime, a release from "
    "https://github.com/microsoft/onnxruntime/releases, or the wheel onnxruntime), and give the path of "
    "libonnxruntime.so in the option onnxruntime_library or in ALIGN_ONNXRUNTIME_LIBRARY";

std::vector<std::string> candidates(const std::string &path) {
    const char *named = std::getenv(VARIABLE);
    if (!path.empty())
        return {path};
    if (named != nullptr && *named != '\0')
        return {named};
    return {"libonnxruntime.so.1", "libonnxruntime.so"};
}

} // namespace

std::string loader_error() {
    const char *reason = dlerror();
    return reason == nullptr ? "unknown reason" : printable(reason, 150);
}

bool OrtFailure::out_of_memory() const {
    const std::string text = what();
    for (const char *words : {"std::bad_alloc", "Failed to allocate memory", "out of memory"})
        if (text.find(words) != text.npos)
            return true;
    return false;
}

const OnnxRuntime &OnnxRuntime::load(const std::string &path) {
    static std::mutex &mutex = *new std::mutex; // both stay until the process has ended
    static auto &loaded = *new std::map<void *, const OnnxRuntime *>;
    std::string problem;
    const std::lock_guard lock(mutex);
    // From 1.29 on it starts a thread, when it is loaded, that sends usage data; a forked child that ends waits for it.
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    for (const std::string &name : candidates(path)) {
        void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            problem = problem.empty() ? loader_error() : problem;
            continue;
        }
        auto found = loaded.find(library);
        if (found == loaded.end())
            found = loaded.emplace(library, new OnnxRuntime(name, library)).first;
        return *found->second;
    }
    throw BackendUnavailableError("ONNX Runtime cannot be loaded (" + problem + "); " + INSTALL);
}

OnnxRuntime::OnnxRuntime(const std::string &path, void *library) : path_(path) {
    using GetApiBase = const OrtApiBase *(ORT_API_CALL *)();
    const auto get_base = reinterpret_cast<GetApiBase>(dlsym(library, "OrtGetApiBase"));
    if (get_base == nullptr)
        throw BackendUnavailableError(path + " is not ONNX Runtime: it has no OrtGetApiBase; " + INSTALL);
    base_ = get_base();
    version_ = base_->GetVersionString();
    unsigned major = 0, minor = 0;
    const bool known = std::sscanf(version_.c_str(), "%u.%u", &major, &minor) == 2;
    // An older library would print that it has no such API.
    api_ = known && major == 1 && minor < LOWEST_API ? nullptr : base_->GetApi(LOWEST_API);
    if (api_ == nullptr)
        throw BackendUnavailableError(path + " is ONNX Runtime " + version_ + ", which is too old; " + INSTALL);
    try {
        check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "align_runtime", &environment_));
    } catch (const OrtFailure &failure) {
        throw BackendUnavailableError(path + " cannot start: " + failure.what());
    }
}

void OnnxRuntime::check(OrtStatus *status) const {
    if (status == nullptr)
        return;
    std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    const std::size_t start = message.find_first_not_of(" \n");
    message = start == message.npos ? "unknown reason" : message.substr(start);
    throw OrtFailure(message.substr(0, message.find('\n')));
}

} // namespace align
