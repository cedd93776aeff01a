#include "devices.hpp"

#include "errors.hpp"
#include "foreign_text.hpp"
#include "graph_entry.hpp"

namespace align {

namespace {

constexpr struct {
    const char *name;
    Backend backend;
    const char *target;
    bool on_cpu;
} BACKENDS[] = {
    {"cpu", Backend::cpu, CPU_TARGET, true},
    {"openvino", Backend::openvino, CPU_TARGET, true},
    {"cuda", Backend::cuda, GPU_TARGET, false},
    {"tensorrt-rtx", Backend::tensorrt_rtx, GPU_TARGET, false},
};
constexpr const char *PYTHON_ONLY = "tensorrt";

// OpenVINO computes the FP32 graphs, in float32 or bfloat16; nothing shows in which types it would others.
constexpr struct {
    const char *precision, *variant;
} OF_OPENVINO[] = {{"fp32", "fp32"}, {"fp32_cpu", "fp32_cpu"}, {"bf16", "fp32"}, {"bf16_cpu", "fp32"}};

} // namespace

Device parse_device(const std::string &name) {
    const std::size_t colon = name.find(':');
    const std::string backend = name.substr(0, colon);
    if (backend == PYTHON_ONLY)
        throw BackendUnavailableError("device is " + in_quotes(name) +
                                      ", which the C++ runtime does not have; use cuda, or the Python runtime");
    for (const auto &row : BACKENDS) {
        if (backend != row.name)
            continue;
        if (colon == name.npos)
            return {name, row.backend, 0, row.on_cpu, row.target};
        const std::string index = name.substr(colon + 1);
        if (row.on_cpu)
            throw ConfigurationError("device is " + in_quotes(name) + ", but " + backend +
                                     " is one device; leave the index out");
        if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != index.npos ||
            (index[0] == '0' && index.size() > 1))
            throw ConfigurationError("device is " + in_quotes(name) + "; expected the index of a GPU, as in '" +
                                     backend + ":1'");
        return {name, row.backend, std::stoi(index), row.on_cpu, row.target};
    }
    throw ConfigurationError("device is " + in_quotes(name) + "; known: cpu, openvino, cuda, tensorrt-rtx, cuda:1");
}

std::string Device::variant_of(const std::string &precision) const {
    if (backend != Backend::openvino)
        return precision;
    for (const auto &[computed, variant] : OF_OPENVINO)
        if (precision == computed)
            return variant;
    throw ConfigurationError("precision is " + in_quotes(precision) +
                             ", but openvino computes in fp32 and bf16; take one of them, or device cpu");
}

} // namespace align
