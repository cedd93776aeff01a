#include "bundle.hpp"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "graph_file.hpp"
#include "regular_files.hpp"
#include "sha256.hpp"

namespace align {

namespace {

std::string absolute(const std::string &path) {
    if (!path.empty() && path[0] == '/')
        return path;
    char buffer[PATH_MAX];
    if (getcwd(buffer, sizeof buffer) == nullptr)
        throw BundleError(path + " cannot be opened: the current folder does not exist");
    return std::string(buffer) + "/" + path;
}

// `path` without links; nothing where it does not exist or links go in a circle.
std::optional<std::string> resolved(const std::string &path) {
    const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), &std::free);
    if (!real)
        return std::nullopt;
    return std::string(real.get());
}

std::string parent(const std::string &path) {
    return path.substr(0, path.rfind('/'));
}

// Whether `file`, resolved, is among the blobs of the repository whose snapshot in a cache of the Hugging Face hub is
// `root`: a cache keeps models--owner--name/blobs/HASH and models--owner--name/snapshots/COMMIT/file, the links.
bool is_in_cache(const std::string &file, const std::string &root) {
    const std::string snapshots = parent(root), repository = parent(snapshots);
    return snapshots == repository + "/snapshots" && parent(file) == repository + "/blobs";
}

// Size of the file `name` of a bundle, which must be a regular file inside of `root`, the bundle's real folder.
std::uint64_t check_place(const std::string &folder, const std::string &root, const std::string &name) {
    const std::string file = folder + "/" + name;
    struct stat status {};
    const std::optional<std::string> real = resolved(file);
    if (!real || stat(file.c_str(), &status) != 0)
        throw BundleError(folder + ": " + name + " is missing; the copy of the bundle is incomplete");
    if (real->compare(0, root.size() + 1, root + "/") != 0 && !is_in_cache(*real, root))
        throw BundleError(folder + ": " + name + " is a link that leaves the bundle; copy the files, not the links");
    if (!S_ISREG(status.st_mode))
        throw BundleError(folder + ": " + name + " is not a regular file; copy the bundle again");
    return static_cast<std::uint64_t>(status.st_size);
}

} // namespace

Bundle Bundle::open(const std::string &folder, const std::string &pin) {
    const std::string path = absolute(folder);
    struct stat status {};
    if (stat(path.c_str(), &status) != 0)
        throw BundleError(path + (errno == ENOENT ? " does not exist" : " cannot be opened") +
                          "; expected a bundle, the folder that align-export writes");
    if (!S_ISDIR(status.st_mode))
        throw BundleError(path + " is not a folder; expected a bundle, the folder that align-export writes");
    const std::optional<std::string> root = resolved(path);
    const std::string where = path + "/" + MANIFEST_NAME;
    if (!root || lstat(where.c_str(), &status) != 0)
        throw BundleError(path + " is not a bundle: it has no " + MANIFEST_NAME +
                          "; expected the folder that align-export writes");
    check_place(path, *root, MANIFEST_NAME);
    const std::string content = read_regular(where, MAX_MANIFEST_BYTES);
    if (const std::string digest = sha256(content); !pin.empty() && digest != pin)
        throw BundleError(where + " has sha256 " + digest + ", expected " + pin +
                          "; this is not the bundle that was pinned");
    return Bundle(path, *root, Manifest::from_json(content, where));
}

const Graph &Bundle::graph(const std::string &tower, const std::string &variant, const std::string &target) const {
    bool has_tower = false;
    std::string names;
    const Graph *found = nullptr;
    for (const Graph &graph : manifest_.graphs) {
        if (graph.tower != tower)
            continue;
        has_tower = true;
        if (graph.target != target && graph.target != ANY_TARGET)
            continue;
        if (names.find(graph.variant) == names.npos)
            names += (names.empty() ? "" : ", ") + graph.variant;
        const bool fits = graph.variant == variant || graph.exact_variant() == variant;
        if (fits && (found == nullptr || found->target == ANY_TARGET || graph.target == target))
            found = &graph;
    }
    if (found != nullptr)
        return *found;
    if (!has_tower)
        throw ConfigurationError("the bundle " + folder_ + " has no " + tower +
                                 " graphs; load its other tower alone, or export it again");
    throw ConfigurationError("precision " + in_quotes(variant) + " is not in the bundle " + folder_ + " for the " +
                             tower + " tower on " + target + "; it has: " + (names.empty() ? "none" : names));
}

std::string Bundle::path(const std::string &name) const {
    const auto entry = manifest_.files.find(name);
    if (entry == manifest_.files.end())
        throw BundleError(folder_ + ": the manifest does not list a file " + in_quotes(name));
    const std::uint64_t size = check_place(folder_, root_, name);
    if (size != entry->second.bytes)
        throw BundleError(folder_ + ": " + name + " has " + std::to_string(size) + " bytes, expected " +
                          std::to_string(entry->second.bytes) +
                          "; the file was changed after the export, or its copy is incomplete");
    return folder_ + "/" + name;
}

std::string Bundle::check_hash(const std::string &name) const {
    std::string file = path(name);
    check_digest(name, sha256_of_file(file));
    return file;
}

std::string Bundle::read(const std::string &name, std::size_t max_bytes) const {
    std::string content = read_regular(path(name), max_bytes);
    check_digest(name, sha256(content));
    return content;
}

void Bundle::check_digest(const std::string &name, const std::string &digest) const {
    const std::string &expected = manifest_.files.at(name).sha256;
    if (digest != expected)
        throw BundleError(folder_ + ": " + name + " has sha256 " + digest.substr(0, 16) + "…, expected " +
                          expected.substr(0, 16) + "…; the file was changed after the export");
}

std::string Bundle::graph_file(const Graph &graph, bool check_hashes) const {
    for (const std::string &name : graph.files())
        check_hashes ? check_hash(name) : path(name);
    const std::string file = folder_ + "/" + graph.file;
    const std::optional<std::string> data =
        graph.data ? std::optional(graph.data->substr(graph.data->rfind('/') + 1)) : std::nullopt;
    check_graph_file(file, data);
    return file;
}

} // namespace align
