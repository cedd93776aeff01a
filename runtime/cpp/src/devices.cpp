#include "devices.hpp"

#include "errors.hpp"
#include "foreign_text.hpp"
#include "graph_entry.hpp"

namespace align {

namespace {

struct Row {
    const char *name, *target;
    bool on_cpu, is_here;
};

constexpr Row BACKENDS[] = {
    {"cpu", CPU_TARGET, true, true},
    {"cuda", GPU_TARGET, false, true},
    {"tensorrt", GPU_TARGET, false, false},
};

} // namespace

Device parse_device(const std::string &name) {
    const std::size_t colon = name.find(':');
    const std::string backend = name.substr(0, colon);
    for (const Row &row : BACKENDS) {
        if (backend != row.name)
            continue;
        if (!row.is_here)
            throw BackendUnavailableError("device is " + in_quotes(name) +
                                          ", which the C++ runtime does not have; use cuda, or the Python runtime");
        if (colon == name.npos)
            return {name, 0, row.on_cpu, row.target};
        const std::string index = name.substr(colon + 1);
        if (row.on_cpu)
            throw ConfigurationError("device is " + in_quotes(name) + ", but " + backend +
                                     " is one device; leave the index out");
        if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != index.npos ||
            (index[0] == '0' && index.size() > 1))
            throw ConfigurationError("device is " + in_quotes(name) + "; expected the index of a GPU, as in '" +
                                     backend + ":1'");
        return {name, std::stoi(index), row.on_cpu, row.target};
    }
    throw ConfigurationError("device is " + in_quotes(name) + "; known: cpu, cuda, cuda:1");
}

} // namespace align
