// Processors: how many this process may use, by its CPU affinity and by the quotas of its control groups.
//
// A container with --cpus 2 on a host of 64 cores sees 64 of them; its quota is in the files of the control group.
// Quotas apply down the hierarchy, so the smallest on the way from the process's group to the root counts.
#pragma once

#include <optional>
#include <string>

namespace align {

constexpr int MAX_THREADS = 1024; // any number would be started, until the machine is out of memory

// The number of logical processors that this process may use, at least 1. A quota of 1.5 processors counts as 2.
// `root` is that of the file system with "proc"; for tests.
int available_cores(const std::string &root = "");

// `available_cores` where the process may not use the whole machine. ONNX Runtime's own choice, one thread for each
// physical core of the machine, knows neither affinity nor quotas.
std::optional<int> limited_cores();

// Whether the processor has VNNI, which sums byte products without saturation; false if unknown.
bool has_vnni();

// Starts `count` threads at once, and ends them: ONNX Runtime waits for ever where one of its threads does not start.
// Throws DeviceError where one cannot be started.
void check_startable(int count);

} // namespace align
