#include "onnxruntime_library.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <vector>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "forks.hpp"

namespace align {

namespace {

constexpr unsigned LOWEST_API = 20; // of ONNX Runtime 1.20; the functions of an API stay for ever
constexpr unsigned HIGHEST_NAME = 99;
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
    std::vector<std::string> names{"libonnxruntime.so.1", "libonnxruntime.so"};
    for (unsigned minor = HIGHEST_NAME; minor >= LOWEST_API; --minor) // as Debian names it
        names.push_back("libonnxruntime.so.1." + std::to_string(minor));
    return names;
}

bool ends_with(const std::string &text, std::size_t end, const std::string &word) {
    return end >= word.size() && text.compare(end - word.size(), word.size(), word) == 0;
}

// Where the words of one of CUDA's libraries begin in a message, e.g. "CUDA failure 2: out of memory"; or npos.
std::size_t failure_of_cuda(const std::string &message) {
    const std::string words = " failure ";
    for (std::size_t found = message.find(words); found != message.npos; found = message.find(words, found + 1)) {
        const std::size_t number = found + words.size(), after = message.find_first_not_of("0123456789", number);
        if (after == message.npos || after == number || message.compare(after, 2, ": ") != 0)
            continue;
        for (const char *library : {"CUDNN_FE", "CUDNN", "CUBLAS", "CUDA"})
            if (ends_with(message, found, library))
                return found - std::strlen(library);
    }
    return message.npos;
}

} // namespace

std::string reason_of(const std::string &message) {
    std::size_t start = failure_of_cuda(message);
    if (start != message.npos) {
        const std::size_t end = message.find_first_of(";\n", start);
        return message.substr(start, message.find_last_not_of(' ', end - 1) + 1 - start);
    }
    for (const char *words : {"Failed to load library", "Invalid device ID"})
        start = std::min(start, message.find(words));
    start = start == message.npos ? message.find_first_not_of(" \n") : start;
    return start == message.npos ? "unknown reason" : message.substr(start, message.find('\n', start) - start);
}

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
    static auto &loaded = *new std::map<void *, const OnnxRuntime *>; // stays until the process has ended
    std::string problem;
    const std::lock_guard lock(process_mutex(Guarded::libraries));
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
    api_ = api_of(LOWEST_API);
    if (api_ == nullptr)
        throw BackendUnavailableError(path + " is ONNX Runtime " + version_ + ", which is too old; " + INSTALL);
    try {
        check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "align_runtime", &environment_));
    } catch (const OrtFailure &failure) {
        throw BackendUnavailableError(path + " cannot start: " + failure.what());
    }
}

const OrtApi *OnnxRuntime::api_of(unsigned version) const {
    unsigned major = 0, minor = 0;
    const bool known = std::sscanf(version_.c_str(), "%u.%u", &major, &minor) == 2;
    // An older library would print that it has no such API.
    return known && major == 1 && minor < version ? nullptr : base_->GetApi(version);
}

void OnnxRuntime::check(OrtStatus *status) const {
    if (status == nullptr)
        return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw OrtFailure(reason_of(message));
}

} // namespace align
