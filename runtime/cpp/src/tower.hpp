// One loaded graph: a session with the lowest latency and, on a CPU, a second one with the highest throughput.
//
// On a CPU, a session with all threads has the lowest latency for one input. For many inputs, parallel single-threaded
// runs, called streams here, have a higher throughput: no thread waits for another within an operator. All streams
// share one session, so the weights are in memory twice, not once per stream. A single input that comes while others are
// computed takes a stream, too. With ONNX Runtime's own kernels the number of threads changes no bit of an embedding.
#pragma once

#include <memory>
#include <string>

#include "bundle.hpp"
#include "load_options.hpp"
#include "runner.hpp"
#include "runs.hpp"

namespace align {

// A graph that is ready to run. Any number of threads may call `run` and `run_stream`.
class Tower {
public:
    // Loads `graph` onto the device of `options`, and once more with one thread if there are streams. `runs` are those
    // of all towers that share the cores. Throws as the runners do.
    Tower(const Bundle &bundle, const Graph &graph, const LoadOptions &options, std::shared_ptr<Runs> runs);

    const Graph &graph() const { return graph_; }
    std::size_t dim() const { return dim_; }

    // Number of calls of `run_stream` that run in parallel; 1 if there are no streams.
    std::size_t streams() const { return streams_; }

    // Number of calls of `run` that keep the device busy: 1 on a CPU.
    int in_flight() const { return whole_->in_flight(); }

    // The number of inputs of one run: what the device is set up for, or else `otherwise`.
    std::size_t batch_size(std::size_t otherwise) const;

    // Writes the embeddings of `inputs` to `out`, float32 (rows, dim), computed with all threads, or, if there are
    // streams and something else runs already, in the calling thread alone. Throws BundleError (on a GPU DeviceError)
    // for a row that is not finite or not of unit length, and as the runners do.
    void run(const std::vector<Input> &inputs, float *out) const;

    // The same, computed in the calling thread alone if there are streams.
    void run_stream(const std::vector<Input> &inputs, float *out) const;

private:
    void run_with(Runner &runner, const std::vector<Input> &inputs, float *out) const;

    Graph graph_;
    std::string device_;
    bool on_cpu_;
    std::size_t dim_, streams_;
    std::unique_ptr<Runner> whole_, stream_;
    std::shared_ptr<Runs> runs_; // not a member itself: a tower can be moved
};

} // namespace align
