#include "handles.hpp"

#include <cstdint>
#include <mutex>
#include <unistd.h>
#include <unordered_map>

#include "errors.hpp"
#include "forks.hpp"

namespace align {

namespace {

struct Entry {
    std::shared_ptr<OpenModel> open;
    pid_t process; // that opened it: a child has none of its threads, so it waits for them for ever
};

// Models that nobody closed are not freed at the end of a process, whose threads may be gone: this one never ends.
struct Table {
    std::unordered_map<std::uintptr_t, Entry> entries;
    std::uintptr_t last = 0;
};

Table &table() {
    static Table &only = *new Table;
    return only;
}

std::uintptr_t key(const align_model *handle) {
    return reinterpret_cast<std::uintptr_t>(handle);
}

[[noreturn]] void not_open() {
    throw ConfigurationError("the model is closed, or is no model of align_open; open the bundle again");
}

} // namespace

Use::Use(const align_model *handle) {
    if (handle == nullptr)
        throw ConfigurationError("the model is NULL; open one with align_open");
    pid_t process = 0;
    {
        const std::lock_guard lock(process_mutex(Guarded::handles));
        const auto found = table().entries.find(key(handle));
        if (found == table().entries.end())
            not_open();
        open_ = found->second.open;
        process = found->second.process;
    }
    if (process != getpid())
        throw ConfigurationError("the model was opened in process " + std::to_string(process) +
                                 ", before the fork that made process " + std::to_string(getpid()) +
                                 ", and its threads did not survive; open the bundle after the fork");
    lock_ = std::shared_lock(open_->in_use);
    if (open_->closed)
        not_open();
}

align_model *add_handle(std::shared_ptr<OpenModel> open) {
    const std::lock_guard lock(process_mutex(Guarded::handles));
    const std::uintptr_t next = table().last + 1;
    table().entries.emplace(next, Entry{std::move(open), getpid()});
    table().last = next;
    return reinterpret_cast<align_model *>(next);
}

void close_handle(align_model *handle) {
    std::shared_ptr<OpenModel> open;
    {
        const std::lock_guard lock(process_mutex(Guarded::handles));
        const auto found = table().entries.find(key(handle));
        if (found == table().entries.end() || found->second.process != getpid())
            return;
        open = std::move(found->second.open);
        table().entries.erase(found);
    }
    const std::lock_guard lock(open->in_use);
    open->closed = true;
}

} // namespace align
