#include "graph_entry.hpp"

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <initializer_list>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "json_values.hpp"

namespace align {

namespace {

constexpr std::int64_t MAX_OPSET = 1000, MAX_SIZE = 1 << 20, MAX_SAMPLES = std::int64_t{1} << 40,
                       MAX_ROWS = std::int64_t{1} << 32;
constexpr std::size_t MAX_DIMENSIONS = 8, MAX_ENTRIES = 4096;
constexpr double MAX_SPEEDUP = 1e6, MAX_COSINE = 1 + 1e-6, MAX_DIFFERENCE = 2;

std::string one_of(const std::string &where, const std::string &value, std::initializer_list<const char *> known) {
    if (std::find(known.begin(), known.end(), value) != known.end())
        return value;
    std::string names;
    for (const char *name : known)
        names += (names.empty() ? "" : ", ") + std::string(name);
    throw ConfigurationError(where + " is " + in_quotes(value) + "; known: " + names);
}

const Json &entries(const std::string &where, const Json &values, const char *key) {
    const Json &list = array(where, values, key);
    if (list.size() > MAX_ENTRIES)
        throw ConfigurationError(where + ": " + key + " has " + std::to_string(list.size()) +
                                 " entries; expected at most " + std::to_string(MAX_ENTRIES));
    return list;
}

std::size_t check_texts(const std::string &where, const Json &values, const char *key) {
    const Json &list = entries(where, values, key);
    for (const Json &entry : list)
        short_text(where + ": " + key, entry);
    return list.size();
}

struct Tensor {
    std::string name, dtype;
    std::size_t dimensions;

    bool operator==(const Tensor &other) const {
        return name == other.name && dtype == other.dtype && dimensions == other.dimensions;
    }
};

std::vector<Tensor> tensors(const std::string &outer, const Json &values, const char *key) {
    const std::string where = outer + ": " + key;
    std::vector<Tensor> result;
    for (const Json &entry : entries(outer, values, key)) {
        as_object(where, entry);
        const std::string dtype =
            one_of(where + ": dtype", string(where, entry, "dtype"), {"uint8", "int64", "float32"});
        const Json &shape = array(where, entry, "shape");
        if (shape.size() > MAX_DIMENSIONS)
            throw ConfigurationError(where + ": shape has " + std::to_string(shape.size()) +
                                     " dimensions; expected at most " + std::to_string(MAX_DIMENSIONS));
        for (const Json &size : shape)
            if (size.is_string())
                short_text(where + ": shape", size);
            else
                integer(where, {{"shape", size}}, "shape", 1, MAX_SIZE);
        result.push_back({text(where, entry, "name"), dtype, shape.size()});
    }
    return result;
}

bool takes_float_pixels(const std::string &where, const Json &values, const std::string &tower) {
    const std::vector<Tensor> found = tensors(where, values, "inputs");
    if (tower == TEXT && found == std::vector<Tensor>{{"input_ids", "int64", 2}, {"attention_mask", "int64", 2}})
        return false;
    const bool is_float = found == std::vector<Tensor>{{"pixel_values", "float32", 4}};
    if (tower == VISION && (is_float || found == std::vector<Tensor>{{"pixels", "uint8", 4}}))
        return is_float;
    std::string names;
    for (const Tensor &tensor : found)
        names += tensor.name + " " + tensor.dtype + ", ";
    throw ConfigurationError(where + ": inputs of the " + tower + " tower are " + in_quotes(names) + "; expected " +
                             (tower == TEXT ? "input_ids, attention_mask" : "pixels or pixel_values"));
}

void check_outputs(const std::string &where, const Json &values) {
    const std::vector<Tensor> found = tensors(where, values, "outputs");
    if (found.size() != 1 || found[0].dtype != "float32" || found[0].dimensions != 2)
        throw ConfigurationError(where + ": outputs are not embeddings, float32 (batch, dim)");
}

void check_content(const std::string &where, const Json &content) {
    for (const char *kind : {"macs", "weights"}) {
        const std::string counts = where + ": " + kind;
        const Json &by_type = object(where, content, kind);
        for (const auto &[dtype, count] : by_type.items()) {
            one_of(counts + ": type", dtype, {"float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32"});
            integer(counts, by_type, dtype.c_str(), 0, INT64_MAX);
        }
    }
}

void check_parity(const std::string &where, const Json &parity, const Json &limits) {
    const std::string measured = where + ": parity", allowed = where + ": limits";
    integer(measured, parity, "rows", 0, MAX_ROWS);
    number(measured, parity, "max_abs", 0, DBL_MAX);
    number(measured, parity, "min_cosine", -MAX_COSINE, MAX_COSINE);
    if (!member(measured, parity, "min_centred_cosine").is_null())
        number(measured, parity, "min_centred_cosine", -MAX_COSINE, MAX_COSINE);
    for (const auto &[metric, sample] : object(measured, parity, "worst").items())
        short_text(measured + ": worst: " + metric, sample);
    number(allowed, limits, "max_abs", 0, MAX_DIFFERENCE);
    number(allowed, limits, "min_cosine", -1, 1);
    number(allowed, limits, "min_centred_cosine", -1, 1);
}

void check_islands(const std::string &outer, const Json &values) {
    const std::string where = outer + ": islands";
    for (const Json &island : entries(outer, values, "islands")) {
        as_object(where, island);
        const std::size_t nodes = check_texts(where, island, "nodes"), reasons = check_texts(where, island, "reasons");
        if (nodes == 0 || reasons == 0)
            throw ConfigurationError(where + ": an island has no nodes or no reasons; expected at least one of each");
    }
}

void check_quantization(const std::string &outer, const Json &values) {
    if (member(outer, values, "quantization").is_null())
        return;
    const std::string where = outer + ": quantization";
    const Json &quantization = object(outer, values, "quantization");
    text(where, quantization, "scheme");
    integer(where, quantization, "samples", 0, MAX_SAMPLES);
    if (!member(where, quantization, "speedup").is_null())
        number(where, quantization, "speedup", 1 / MAX_SPEEDUP, MAX_SPEEDUP);
    check_texts(where, quantization, "kept");
}

bool is_variant(const std::string &name) {
    const auto is_alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    return !name.empty() && name.size() <= 64 && is_alphanumeric(name[0]) &&
           std::all_of(name.begin(), name.end(),
                       [&](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

std::string folder_of(const std::string &path) {
    const std::size_t slash = path.rfind('/');
    return slash == path.npos ? "" : path.substr(0, slash);
}

} // namespace

std::vector<std::string> Graph::files() const {
    return data ? std::vector<std::string>{file, *data} : std::vector<std::string>{file};
}

Graph Graph::from_json(const Json &values, const std::string &where) {
    Graph graph;
    graph.tower = one_of(where + ": tower", string(where, values, "tower"), {VISION, TEXT});
    graph.target = one_of(where + ": target", string(where, values, "target"), {ANY_TARGET, CPU_TARGET, GPU_TARGET});
    graph.variant = string(where, values, "variant");
    if (!is_variant(graph.variant))
        throw ConfigurationError(where + ": variant is " + in_quotes(graph.variant) +
                                 "; expected a name such as 'fp16'");
    graph.file = relative_path(string(where, values, "file"));
    const std::string ending = ".onnx"; // ONNX Runtime takes a file's format from the end of its name
    if (graph.file.size() < ending.size() || graph.file.substr(graph.file.size() - ending.size()) != ending)
        throw ConfigurationError(where + ": file is " + in_quotes(graph.file) +
                                 "; expected a name that ends with .onnx");
    if (!member(where, values, "data").is_null()) {
        graph.data = relative_path(string(where, values, "data"));
        if (folder_of(*graph.data) != folder_of(graph.file))
            throw ConfigurationError(where + ": data is " + in_quotes(*graph.data) +
                                     "; expected a file in the folder of " + graph.file);
    }
    integer(where, values, "opset", 1, MAX_OPSET);
    graph.float_pixels = takes_float_pixels(where, values, graph.tower);
    check_outputs(where, values);
    check_content(where + ": content", object(where, values, "content"));
    check_parity(where, object(where, values, "parity"), object(where, values, "limits"));
    check_islands(where, values);
    check_quantization(where, values);
    return graph;
}

} // namespace align
