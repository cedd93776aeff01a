#include "workers.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

namespace align {

class Task {
public:
    Task(std::size_t count, const std::function<void(std::size_t)> &work) : count_(count), work_(work) {}

    // Does the next item. Returns whether there may be another one.
    bool step() {
        std::size_t index = 0;
        {
            const std::lock_guard lock(mutex_);
            if (next_ == count_)
                return false;
            index = next_++;
            ++running_;
        }
        std::exception_ptr error;
        try {
            work_(index);
        } catch (...) {
            error = std::current_exception();
        }
        const std::lock_guard lock(mutex_);
        if (error) {
            if (!error_ || index < failed_) {
                error_ = error;
                failed_ = index;
            }
            next_ = count_; // items start in order: all before this one have started
        }
        --running_;
        if (next_ == count_ && running_ == 0)
            done_.notify_all();
        return next_ < count_;
    }

    // No thread of the pool works on it: whoever waits does.
    void leave_to_caller() { left_to_caller_ = true; }

    // Waits until all that was started is done.
    void wait() {
        while (left_to_caller_ && step()) {
        }
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return next_ == count_ && running_ == 0; });
    }

    // Starts no further item.
    void cancel() {
        const std::lock_guard lock(mutex_);
        next_ = count_;
    }

    // The caller alone keeps the exception: a worker may let go of the task while the caller reads it.
    void rethrow() {
        if (error_)
            std::rethrow_exception(std::exchange(error_, nullptr));
    }

private:
    const std::size_t count_;
    const std::function<void(std::size_t)> &work_;
    std::mutex mutex_;
    std::condition_variable done_;
    std::size_t next_ = 0, running_ = 0, failed_ = 0;
    std::exception_ptr error_;
    bool left_to_caller_ = false;
};

Pending::~Pending() {
    task_->cancel();
    task_->wait();
}

void Pending::finish() {
    task_->wait();
    task_->rethrow();
}

Workers::~Workers() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    waiting_.notify_all();
    for (std::thread &thread : threads_)
        thread.join();
}

void Workers::run(std::size_t count, const std::function<void(std::size_t)> &work) {
    start(count, work)->finish();
}

std::unique_ptr<Pending> Workers::start(std::size_t count, const std::function<void(std::size_t)> &work) {
    auto task = std::make_shared<Task>(count, work);
    auto pending = std::make_unique<Pending>(task);
    const std::size_t wanted = std::min(count, static_cast<std::size_t>(count_));
    const std::lock_guard lock(mutex_);
    bool served = false;
    try {
        for (std::size_t i = 0; i < wanted; ++i) { // one place in the queue for each thread that may work on it
            if (static_cast<std::size_t>(idle_) <= queue_.size() && threads_.size() < static_cast<std::size_t>(count_))
                threads_.emplace_back([this] { serve(); });
            queue_.push_back(task);
            served = true;
        }
    } catch (const std::exception &) { // a limit on threads or memory: those threads that are there do the work
        if (!threads_.empty() && !served)
            try {
                queue_.push_back(task);
                served = true;
            } catch (const std::bad_alloc &) {
            }
    }
    if (!served)
        task->leave_to_caller();
    waiting_.notify_all();
    return pending;
}

void Workers::serve() {
    std::unique_lock lock(mutex_);
    while (true) {
        ++idle_;
        waiting_.wait(lock, [this] { return closing_ || !queue_.empty(); });
        --idle_;
        if (queue_.empty())
            return;
        std::shared_ptr<Task> task = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        const bool more = task->step();
        lock.lock();
        if (!more)
            continue;
        try {
            queue_.push_back(task); // behind those of other callers
        } catch (const std::bad_alloc &) {
            lock.unlock();
            while (task->step()) {
            }
            lock.lock();
        }
    }
}

} // namespace align
