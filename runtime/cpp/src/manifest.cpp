#include "manifest.hpp"

#include "errors.hpp"
#include "json_values.hpp"

namespace align {

namespace {

constexpr std::size_t MAX_FILES = 10000, MAX_GRAPHS = 256;
constexpr std::int64_t MAX_FILE_BYTES = std::int64_t{1} << 36;

void check_strings(const std::string &where, const Json &values) {
    for (const auto &[key, value] : values.items()) {
        short_text(where, key);
        short_text(where + ": " + key, value);
    }
}

void check_provenance(const std::string &where, const Json &values) {
    text(where, values, "name");
    if (!member(where, values, "revision").is_null())
        text(where, values, "revision");
    check_strings(where, object(where, values, "files"));
    check_free_form(where + ": options", object(where, values, "options"));
    check_strings(where, object(where, values, "tools"));
    if (!member(where, values, "random_weights").is_null())
        integer(where, values, "random_weights", 0, INT64_MAX);
    for (const Json &note : array(where, values, "notes"))
        if (!note.is_string())
            throw ConfigurationError(where + ": notes is " + shown(note) + "; expected a string");
}

ModelFacts model_facts(const std::string &where, const Json &values) {
    ModelFacts facts{};
    facts.embedding_dim = static_cast<std::size_t>(integer(where, values, "embedding_dim", 1, 1 << 16));
    facts.temperature = number(where, values, "temperature", 1e-6, 1e6);
    facts.max_length = static_cast<std::int32_t>(integer(where, values, "max_length", 2, 1 << 16));
    facts.vocab_size = integer(where, values, "vocab_size", 1, 1 << 24);
    facts.pad_token_id = integer(where, values, "pad_token_id", 0, facts.vocab_size - 1);
    return facts;
}

FileEntry file_entry(const std::string &where, const Json &values) {
    as_object(where, values);
    const std::string &digest = string(where, values, "sha256");
    if (!is_sha256(digest))
        throw ConfigurationError(where + ": sha256 is " + shown(digest) +
                                 "; expected 64 hexadecimal digits in lower case");
    return {static_cast<std::uint64_t>(integer(where, values, "bytes", 0, MAX_FILE_BYTES)), digest};
}

Manifest read(const Json &values, const std::string &where) {
    const Json &model = object(where, values, "model"), &files = object(where, values, "files");
    const Json &graphs = array(where, values, "graphs");
    if (graphs.empty() || graphs.size() > MAX_GRAPHS || files.size() > MAX_FILES)
        throw ConfigurationError(where + ": " + std::to_string(graphs.size()) + " graphs and " +
                                 std::to_string(files.size()) + " files; expected 1 to " + std::to_string(MAX_GRAPHS) +
                                 " graphs, and at most " + std::to_string(MAX_FILES) + " files");
    if (files.contains(MANIFEST_NAME))
        throw ConfigurationError(where + ": " + MANIFEST_NAME +
                                 " lists itself; it is not a plain path inside the bundle");
    check_provenance(where + ": provenance", object(where, values, "provenance"));
    Manifest manifest{model_facts(where + ": model", model),
                      Preprocessing::from_json(object(where, values, "preprocessing")),
                      {},
                      {}};
    for (std::size_t i = 0; i < graphs.size(); ++i)
        manifest.graphs.push_back(
            Graph::from_json(as_object(where + ": graphs", graphs[i]), where + ": graph " + std::to_string(i)));
    for (const auto &[name, entry] : files.items())
        manifest.files.emplace(relative_path(name), file_entry(where + ": " + name, entry));
    return manifest;
}

} // namespace

bool is_sha256(std::string_view text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

Manifest Manifest::from_json(std::string_view content, const std::string &where) {
    const Json values = parse_object(content, where, MAX_MANIFEST_BYTES);
    const auto version = values.find("schema_version");
    if (version == values.end() || !version->is_number() || *version != SCHEMA_VERSION)
        throw BundleError(where + ": schema version " + (version == values.end() ? "is missing" : shown(*version)) +
                          "; this runtime reads version " + std::to_string(SCHEMA_VERSION) +
                          ". Export the checkpoint again, or use the release that wrote the bundle");
    try {
        Manifest manifest = read(values, where);
        for (const Graph &graph : manifest.graphs)
            for (const std::string &name : graph.files())
                if (manifest.files.count(name) == 0)
                    throw BundleError(where + ": " + name + ", the file of a graph, is not in the list of files");
        return manifest;
    } catch (const ConfigurationError &error) {
        throw BundleError(error.message + " (" + MANIFEST_NAME + " is not as align-export wrote it; export again)");
    }
}

} // namespace align
