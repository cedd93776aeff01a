// What every backend offers: a loaded graph that runs batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace align {

enum class ElementType { uint8, int64, float32 };

// One input of a graph. The first size of `shape` is the number of rows.
struct Input {
    const char *name;
    ElementType type;
    std::vector<std::int64_t> shape;
    const void *data;

    std::size_t elements() const;
    std::size_t bytes() const; // of all elements
};

// The embeddings that a graph answers with: float32 (rows, dim).
struct Answer {
    std::size_t rows, dim;
    float *values;
};

// A loaded graph with one output. Any number of threads may call `run` at once.
class Runner {
public:
    virtual ~Runner() = default;

    // Runs the graph on `inputs` and writes its output to `answer`. Throws InputError where the graph does not take
    // them, BundleError where it answers in another type or shape, DeviceError where memory ran out or the device
    // failed.
    virtual void run(const std::vector<Input> &inputs, const Answer &answer) = 0;

    // The batch sizes that the device is set up for, ascending; empty where any is fine.
    virtual std::vector<std::size_t> batches() const { return {}; }

    // The number of calls of `run` that keep the device busy.
    virtual int in_flight() const { return 1; }
};

// The error of an action for which there was not enough memory.
[[noreturn]] void throw_out_of_memory(const std::string &action);

// Shapes of inputs for an error message.
std::string shapes_of(const std::vector<Input> &inputs);

// A shape as Python writes it: "(2, 96)".
std::string shown_shape(const std::vector<std::int64_t> &shape);

} // namespace align
