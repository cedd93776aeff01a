// What an ONNX file may hold: no functions, no subgraphs, no foreign operators, and weights in listed files alone.
//
// ONNX Runtime reads whatever a graph names, so a graph of a bundle is walked before it is loaded. The walk knows the
// fields of onnx.proto that align-export writes, skips values without reading them, and refuses every other field.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace align {

// Walks the ONNX file `file`. `data` is the name of the one file beside it that may hold weights. Throws BundleError
// where it is not ONNX as align-export writes it, or names another file.
void check_graph_file(const std::string &file, const std::optional<std::string> &data);

// The same for the content of a file, which errors call `subject`.
void check_graph_bytes(std::string_view content, const std::string &subject, const std::optional<std::string> &data);

} // namespace align
