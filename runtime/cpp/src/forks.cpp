#include "forks.hpp"

#include <new>
#include <pthread.h>

namespace align {

namespace {

struct Mutexes {
    std::mutex handles, libraries;

    Mutexes() { pthread_atfork(lock, unlock, renew); }

    static Mutexes &only() {
        static Mutexes &mutexes = *new Mutexes;
        return mutexes;
    }

private:
    static void lock() {
        only().handles.lock();
        only().libraries.lock();
    }
    static void unlock() {
        only().libraries.unlock();
        only().handles.unlock();
    }
    static void renew() { // the child's thread has another number than the one that locked them
        new (&only().libraries) std::mutex;
        new (&only().handles) std::mutex;
    }
};

} // namespace

std::mutex &process_mutex(Guarded what) {
    return what == Guarded::handles ? Mutexes::only().handles : Mutexes::only().libraries;
}

} // namespace align
