#include "tower.hpp"

#include <cmath>
#include <utility>

#include "backends.hpp"
#include "errors.hpp"

namespace align {

namespace {

// Graphs of every precision normalize in FP32: rows of FP32, FP16 and INT8 graphs are 1 ± 3e-7 long.
constexpr double UNIT_TOLERANCE = 1e-3;

} // namespace

Tower::Tower(const Bundle &bundle, const Graph &graph, const LoadOptions &options, std::shared_ptr<Runs> runs)
    : graph_(graph), device_(options.device.name), on_cpu_(options.device.on_cpu),
      dim_(bundle.manifest().model.embedding_dim), streams_(static_cast<std::size_t>(options.stream_count())),
      runs_(std::move(runs)) {
    const std::string file = bundle.graph_file(graph, options.check_hashes);
    whole_ = open_graph(bundle, graph, file, options, options.threads, 1);
    if (streams_ > 1)
        stream_ = open_graph(bundle, graph, file, options, 1, options.stream_count());
}

std::size_t Tower::batch_size(std::size_t otherwise) const {
    const std::vector<std::size_t> sizes = whole_->batches();
    return sizes.empty() ? otherwise : sizes.back();
}

void Tower::run(const std::vector<Input> &inputs, float *out) const {
    if (!stream_)
        return run_with(*whole_, inputs, out);
    const Runs::Entered run(*runs_);
    run_with(run.alone() ? *whole_ : *stream_, inputs, out);
}

void Tower::run_stream(const std::vector<Input> &inputs, float *out) const {
    if (!stream_)
        return run_with(*whole_, inputs, out);
    const Runs::Entered run(*runs_);
    run_with(*stream_, inputs, out);
}

void Tower::run_with(Runner &runner, const std::vector<Input> &inputs, float *out) const {
    const auto rows = static_cast<std::size_t>(inputs.at(0).shape.at(0));
    runner.run(inputs, {rows, dim_, out});
    for (std::size_t row = 0; row < rows; ++row) {
        double square = 0;
        for (std::size_t i = 0; i < dim_; ++i)
            square += static_cast<double>(out[row * dim_ + i]) * static_cast<double>(out[row * dim_ + i]);
        const double length = std::sqrt(square);
        if (length >= 1 - UNIT_TOLERANCE && length <= 1 + UNIT_TOLERANCE) // NaN is on neither side
            continue;
        const std::string what =
            std::isfinite(length) ? "of length " + std::to_string(length) : "with NaN or infinite values";
        const std::string message = graph_.file + " on " + device_ + " returns a row " + what + " (row " +
                                    std::to_string(row) + " of " + std::to_string(rows) +
                                    "), expected finite rows of unit length; check the bundle with align-verify, or "
                                    "take another precision or device";
        if (on_cpu_) // the fault of the file; elsewhere it may be the device's
            throw BundleError(message);
        throw DeviceError(message);
    }
}

} // namespace align
