// A lock for CUDA graphs: while one is captured, nothing else of the process may use the GPU.
#pragma once

#include <condition_variable>
#include <mutex>
#include <new>
#include <pthread.h>

namespace align {

// Any number of threads share it, or one has it alone; who waits for the latter goes before new sharers, which
// std::shared_mutex does not promise. Its functions are those that std::unique_lock and std::shared_lock call.
class CaptureLock {
public:
    void lock_shared() { // for work on the GPU that captures nothing
        std::unique_lock guard(mutex_);
        changed_.wait(guard, [this] { return !taken_ && waiting_ == 0; });
        ++sharers_;
    }

    void unlock_shared() {
        const std::lock_guard guard(mutex_);
        --sharers_;
        changed_.notify_all();
    }

    void lock() { // for a first run, which captures
        std::unique_lock guard(mutex_);
        ++waiting_;
        changed_.wait(guard, [this] { return !taken_ && sharers_ == 0; });
        --waiting_;
        taken_ = true;
    }

    void unlock() {
        const std::lock_guard guard(mutex_);
        taken_ = false;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int sharers_ = 0, waiting_ = 0;
    bool taken_ = false;
};

// ONNX Runtime captures CUDA graphs in the mode cudaStreamCaptureModeGlobal: while one thread captures, copies and
// allocations of all others in the process fail, and the capture with them.
inline CaptureLock &captures() {
    static auto *const lock = new CaptureLock; // stays until the process has ended, as threads may
    static const int renewed = pthread_atfork(nullptr, nullptr, [] { new (lock) CaptureLock; }); // in children
    static_cast<void>(renewed);
    return *lock;
}

} // namespace align
