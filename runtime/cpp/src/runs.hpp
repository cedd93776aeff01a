// The runs of a model on a processor's cores, which decide whether a run takes all cores or one.
//
// A run that is alone is soonest with all cores. Runs side by side compute more in the same time with a core each: no
// thread waits for another one within an operator, or spins while another run needs its core.
#pragma once

#include <atomic>

namespace align {

// What runs now. Any number of threads may use it.
class Runs {
public:
    // A run is inside while this lives.
    class Entered {
    public:
        explicit Entered(Runs &runs) : runs_(runs), alone_(runs.inside_.fetch_add(1) == 0) {}
        ~Entered() { runs_.inside_.fetch_sub(1); }
        Entered(const Entered &) = delete;
        Entered &operator=(const Entered &) = delete;

        // Whether it was the only one when it began.
        bool alone() const { return alone_; }

    private:
        Runs &runs_;
        bool alone_;
    };

private:
    std::atomic<int> inside_{0};
};

} // namespace align
