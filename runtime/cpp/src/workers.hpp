// Workers: the threads that prepare inputs and run streams, shared by all callers of a model.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace align {

// Work on several items, and what became of it.
class Task;

// Work that was started and not yet waited for. Leaving the scope starts no further item, and waits for those started.
class Pending {
public:
    explicit Pending(std::shared_ptr<Task> task) : task_(std::move(task)) {}
    ~Pending();
    Pending(const Pending &) = delete;
    Pending &operator=(const Pending &) = delete;

    // Waits until all is done, and throws the error of the lowest index that failed.
    void finish();

private:
    std::shared_ptr<Task> task_;
};

// A pool of threads, which start when there is work. Any number of callers may share it: their items take turns.
class Workers {
public:
    explicit Workers(int count) : count_(count) {}

    // Waits for the work that has started.
    ~Workers();
    Workers(const Workers &) = delete;
    Workers &operator=(const Workers &) = delete;

    // Calls `work(index)` for every index below `count` in the threads of the pool, and returns when all are done. If
    // some fail, no further one is started, and the error is that of the lowest index. Where no thread can be started,
    // the caller does the work.
    void run(std::size_t count, const std::function<void(std::size_t)> &work);

    // The same without waiting. `work` must outlive what is returned.
    std::unique_ptr<Pending> start(std::size_t count, const std::function<void(std::size_t)> &work);

private:
    void serve();

    const int count_;
    std::mutex mutex_;
    std::condition_variable waiting_;
    std::deque<std::shared_ptr<Task>> queue_;
    std::vector<std::thread> threads_;
    int idle_ = 0;
    bool closing_ = false;
};

} // namespace align
