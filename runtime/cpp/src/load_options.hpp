// The options of align_open, as one value that is checked once and handed on.
#pragma once

#include <optional>
#include <string>

#include "align_runtime.h"
#include "devices.hpp"
#include "images.hpp"

namespace align {

struct LoadOptions {
    std::string precision;
    Device device;
    bool vision = true, text = true; // the towers to load
    std::optional<int> threads;      // of one run on a CPU, and of the tokenizer; all cores without it
    std::optional<int> streams;      // single-threaded runs side by side; one per thread without it
    bool check_hashes = false;
    std::string onnxruntime_library;
    std::string provider_library; // of a plugin provider
    std::string manifest_sha256;  // what align.json must have; empty for any
    Background background;        // behind transparent pixels
    Limits limits;                // of images

    // Reads the caller's options; the defaults for nullptr. Throws ConfigurationError.
    static LoadOptions from(const align_options *given);

    // `threads`, or the cores that this process may use.
    int thread_count() const;

    // The number of streams: `streams`, or on a CPU one per thread; 1 on a GPU.
    int stream_count() const;
};

} // namespace align
