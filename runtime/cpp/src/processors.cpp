#include "processors.hpp"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>
#include <sched.h>
#include <sstream>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "errors.hpp"

namespace align {

namespace {

std::string content_of(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> split(const std::string &text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        parts.push_back(part);
    return parts;
}

std::vector<std::string> folders(const std::string &path) {
    std::vector<std::string> parts = split(path, '/');
    parts.erase(std::remove(parts.begin(), parts.end(), ""), parts.end());
    return parts;
}

// A path of "mountinfo", in which spaces and the like are octal.
std::string unescaped(const std::string &field) {
    std::string result;
    for (std::size_t i = 0; i < field.size(); ++i) {
        const std::string digits = field.substr(i + 1, 3);
        if (field[i] == '\\' && digits.size() == 3 && digits.find_first_not_of("01234567") == digits.npos) {
            result += static_cast<char>(std::stoi(digits, nullptr, 8));
            i += 3;
        } else {
            result += field[i];
        }
    }
    return result;
}

// The folders of `path` below `mounted`, the group that is the root of the mount; in a container it may be outside.
std::vector<std::string> below(const std::string &path, const std::string &mounted) {
    std::vector<std::string> parts = folders(path);
    const std::vector<std::string> top = folders(mounted);
    if (parts.size() < top.size() || !std::equal(top.begin(), top.end(), parts.begin()) ||
        std::find(parts.begin(), parts.end(), "..") != parts.end())
        return {};
    parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(top.size()));
    return parts;
}

// Processors that the files of one control group allow; infinity for no limit, or where they cannot be read.
double quota_of(const std::string &folder, bool version_2) {
    std::istringstream values(version_2 ? content_of(folder + "/cpu.max")
                                        : content_of(folder + "/cpu.cfs_quota_us") + " " +
                                              content_of(folder + "/cpu.cfs_period_us"));
    double quota = 0, period = 0;
    if (!(values >> quota >> period) || quota < 1 || period < 1)
        return INFINITY;
    return quota / period;
}

double smallest_quota(const std::string &root) {
    std::map<std::string, std::string> paths; // of this process's group, by its controllers; version 2 has none: ""
    for (const std::string &line : split(content_of(root + "/proc/self/cgroup"), '\n')) {
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == line.npos || second == line.npos)
            continue;
        const std::string names = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        paths[""] = names.empty() ? path : paths[""];
        for (const std::string &name : split(names, ','))
            paths[name] = path;
    }
    double smallest = INFINITY;
    for (const std::string &line : split(content_of(root + "/proc/self/mountinfo"), '\n')) {
        const std::size_t dash = line.find(" - ");
        if (dash == line.npos)
            continue;
        const std::vector<std::string> before = split(line.substr(0, dash), ' '),
                                       after = split(line.substr(dash + 3), ' ');
        if (before.size() < 5 || after.empty() || (after[0] != "cgroup" && after[0] != "cgroup2"))
            continue;
        const bool version_2 = after[0] == "cgroup2";
        const std::vector<std::string> controllers = split(after.size() > 2 ? after[2] : "", ',');
        if (!version_2 && std::find(controllers.begin(), controllers.end(), "cpu") == controllers.end())
            continue; // of another controller
        const auto path = paths.find(version_2 ? "" : "cpu");
        if (path == paths.end())
            continue;
        std::string folder = root + unescaped(before[4]);
        smallest = std::min(smallest, quota_of(folder, version_2));
        for (const std::string &part : below(path->second, unescaped(before[3]))) {
            folder += "/" + part;
            smallest = std::min(smallest, quota_of(folder, version_2));
        }
    }
    return smallest;
}

// Threads that wait for the end of a check.
class Waiting {
public:
    ~Waiting() {
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        for (std::thread &thread : threads_)
            thread.join();
    }

    void start_one() {
        threads_.emplace_back([this] {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return ended_; });
        });
    }

    int count() const { return static_cast<int>(threads_.size()); }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ended_ = false;
    std::vector<std::thread> threads_;
};

} // namespace

int available_cores(const std::string &root) {
    cpu_set_t set;
    CPU_ZERO(&set);
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    if (cores < 1) // more than 1024 processors
        cores = static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
    const double quota = std::ceil(smallest_quota(root));
    return std::max(1, quota < cores ? static_cast<int>(quota) : cores);
}

std::optional<int> limited_cores() {
    const int cores = available_cores();
    return cores < sysconf(_SC_NPROCESSORS_ONLN) ? std::optional(cores) : std::nullopt;
}

bool has_vnni() {
    static const bool found = content_of("/proc/cpuinfo").find("vnni") != std::string::npos;
    return found;
}

void check_startable(int count) {
    Waiting waiting;
    try {
        while (waiting.count() < count)
            waiting.start_one();
    } catch (const std::system_error &reason) {
        throw DeviceError("only " + std::to_string(waiting.count()) + " of " + std::to_string(count) +
                          " threads can be started (" + reason.what() +
                          "); raise the limit of processes (ulimit -u, pids.max of a container) or of memory, or set "
                          "threads to fewer");
    }
}

} // namespace align
