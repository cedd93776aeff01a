#include "plugin_provider.hpp"

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <link.h>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "forks.hpp"

#if ORT_API_VERSION < 23
#error "Headers of ONNX Runtime 1.23 or newer are needed; runtime/cpp/install_packages.sh unpacks some"
#endif

namespace align {

namespace {

constexpr unsigned PLUGIN_API = 23; // of ONNX Runtime 1.23, the first with all functions below
constexpr const char *VARIABLE = "ALIGN_PROVIDER_LIBRARY";

// The functions for plugins. Throws BackendUnavailableError where `runtime` is older.
const OrtApi &plugin_api(const OnnxRuntime &runtime, const Plugin &plugin) {
    const OrtApi *api = runtime.api_of(PLUGIN_API);
    if (api == nullptr)
        throw BackendUnavailableError(std::string(plugin.provider) + " needs ONNX Runtime 1.23 or newer; " +
                                      runtime.path() + " is " + runtime.version());
    return *api;
}

// The absolute path of the library of `plugin`, which is loaded so that the dynamic loader says what is missing.
std::string path_of(const Plugin &plugin, const std::string &given) {
    const char *named = std::getenv(VARIABLE);
    const std::string name = !given.empty() ? given : named != nullptr && *named != '\0' ? named : plugin.library;
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
        throw BackendUnavailableError(std::string(plugin.provider) + " cannot be loaded (" + loader_error() +
                                      "); install " + plugin.install +
                                      ", and give its path in the option provider_library or in " + VARIABLE);
    link_map *place = nullptr;
    if (dlinfo(library, RTLD_DI_LINKMAP, &place) != 0)
        return name;
    // ONNX Runtime takes a relative path to be one from its own folder.
    return std::filesystem::absolute(place->l_name).string();
}

// The devices of `plugin` that compute graphs; none before its library is registered.
std::vector<const OrtEpDevice *> devices_of(const OnnxRuntime &runtime, const Plugin &plugin) {
    const OrtApi &api = plugin_api(runtime, plugin);
    const OrtEpDevice *const *all = nullptr;
    std::size_t count = 0;
    runtime.check(api.GetEpDevices(runtime.environment(), &all, &count));
    std::vector<const OrtEpDevice *> found;
    for (std::size_t i = 0; i < count; ++i) {
        const char *value =
            plugin.key == nullptr ? nullptr : api.GetKeyValue(api.EpDevice_EpMetadata(all[i]), plugin.key);
        const bool fits = plugin.key == nullptr || (value != nullptr && std::strcmp(value, plugin.value) == 0);
        if (fits && std::strcmp(api.EpDevice_EpName(all[i]), plugin.provider) == 0)
            found.push_back(all[i]);
    }
    return found;
}

} // namespace

PluginDevice::PluginDevice(const OnnxRuntime &runtime, const Plugin &plugin, const std::string &path, int index)
    : runtime_(runtime), plugin_(plugin) {
    const OrtApi &api = plugin_api(runtime, plugin);
    const std::lock_guard lock(process_mutex(Guarded::libraries));
    static std::set<std::pair<const OnnxRuntime *, std::string>> registered; // a runtime refuses a provider twice
    const std::pair<const OnnxRuntime *, std::string> registration(&runtime, plugin.provider);
    std::vector<const OrtEpDevice *> devices = devices_of(runtime, plugin);
    if (devices.empty() && registered.count(registration) == 0) {
        const std::string library = path_of(plugin, path);
        try {
            runtime.check(
                api.RegisterExecutionProviderLibrary(runtime.environment(), plugin.provider, library.c_str()));
        } catch (const OrtFailure &failure) {
            throw BackendUnavailableError("ONNX Runtime " + runtime.version() + " cannot load " + library + " as " +
                                          plugin.provider + " (" + failure.what() + "); install " + plugin.install);
        }
        registered.insert(registration);
        devices = devices_of(runtime, plugin);
    }
    const auto wanted = static_cast<std::size_t>(index);
    if (wanted >= devices.size())
        throw BackendUnavailableError(std::string(plugin.provider) + " has " + std::to_string(devices.size()) +
                                      " devices on this machine, and none with the index " + std::to_string(index) +
                                      "; take another device");
    device_ = devices[wanted];
}

std::string PluginDevice::metadata(const char *key) const {
    const OrtApi &api = plugin_api(runtime_, plugin_);
    const char *value = api.GetKeyValue(api.EpDevice_EpMetadata(device_), key);
    return value == nullptr ? "" : value;
}

void PluginDevice::append_to(OrtSessionOptions *session_options,
                             const std::map<std::string, std::string> &options) const {
    const OrtApi &api = plugin_api(runtime_, plugin_);
    std::vector<const char *> keys, values;
    for (const auto &[key, value] : options) {
        keys.push_back(key.c_str());
        values.push_back(value.c_str());
    }
    try {
        runtime_.check(api.AddSessionConfigEntry(session_options, "session.disable_cpu_ep_fallback", "1"));
        runtime_.check(api.SessionOptionsAppendExecutionProvider_V2(session_options, runtime_.environment(), &device_,
                                                                    1, keys.data(), values.data(), keys.size()));
    } catch (const OrtFailure &failure) {
        throw BackendUnavailableError(std::string(plugin_.provider) + " cannot start (" + failure.what() +
                                      "); install " + plugin_.install);
    }
}

} // namespace align
