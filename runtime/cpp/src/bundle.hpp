// The bundle: a folder with a manifest, opened for reading.
#pragma once

#include <string>

#include "manifest.hpp"

namespace align {

class Bundle {
public:
    // Opens the bundle in `folder`. `pin` is the sha256 that align.json must have; empty for any. A file is looked at
    // when it is asked for. Throws BundleError where the folder or manifest is missing or not valid.
    static Bundle open(const std::string &folder, const std::string &pin = "");

    const std::string &folder() const { return folder_; }
    const Manifest &manifest() const { return manifest_; }

    // The graph of `tower` in `variant` for `target`, otherwise the one for any target. `variant` may be exact, e.g.
    // "int8_cpu". Throws ConfigurationError where the bundle has none.
    const Graph &graph(const std::string &tower, const std::string &variant, const std::string &target) const;

    // Path of the file `name`, which exists with the size that the manifest lists. Throws BundleError.
    std::string path(const std::string &name) const;

    // Path of the file `name`, after a comparison of its sha256 with the manifest. Throws BundleError.
    std::string check_hash(const std::string &name) const;

    // The content of the file `name`, whose sha256 is that of the manifest: what was hashed is what is used.
    std::string read(const std::string &name, std::size_t max_bytes) const;

    // Path of the ONNX file of `graph`, after a check that it needs no other file than the manifest says.
    std::string graph_file(const Graph &graph, bool check_hashes) const;

private:
    Bundle(std::string folder, std::string root, Manifest manifest)
        : folder_(std::move(folder)), root_(std::move(root)), manifest_(std::move(manifest)) {}

    void check_digest(const std::string &name, const std::string &digest) const;

    std::string folder_; // absolute: files that are opened later are found after a change of folder
    std::string root_;   // the same without links
    Manifest manifest_;
};

} // namespace align
