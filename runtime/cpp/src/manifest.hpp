// align.json: the schema of a bundle's manifest, with the checks of align_runtime.manifest.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph_entry.hpp"
#include "preprocessing.hpp"

namespace align {

constexpr int SCHEMA_VERSION = 6;
constexpr const char *MANIFEST_NAME = "align.json";
constexpr std::size_t MAX_MANIFEST_BYTES = 16 << 20;

// Size of a file in bytes, and its sha256 in lower-case hexadecimal.
struct FileEntry {
    std::uint64_t bytes;
    std::string sha256;
};

// Constants of the model.
struct ModelFacts {
    std::size_t embedding_dim;
    double temperature;      // logits are cosines divided by it
    std::int32_t max_length; // tokens of a text, [CLS] and [SEP] included
    std::int64_t pad_token_id, vocab_size;
};

struct Manifest {
    ModelFacts model;
    Preprocessing preprocessing;
    std::vector<Graph> graphs;
    std::map<std::string, FileEntry> files; // every other file of the bundle by its path

    // Reads the content of a manifest, which errors call `where`. Throws BundleError.
    static Manifest from_json(std::string_view content, const std::string &where);
};

// Whether `text` is a sha256 in lower-case hexadecimal, as sha256sum prints it.
bool is_sha256(std::string_view text);

} // namespace align
