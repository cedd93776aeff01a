// Mutexes of the process, which a forked child finds open: a fork waits until no thread holds one.
#pragma once

#include <mutex>

namespace align {

// The table of open models, and the libraries of ONNX Runtime that are loaded. No thread holds both.
enum class Guarded { handles, libraries };

// The mutex of `what`, which stays until the process has ended. A child has none of the threads that might hold it.
std::mutex &process_mutex(Guarded what);

} // namespace align
