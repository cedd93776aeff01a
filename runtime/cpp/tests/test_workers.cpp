#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "errors.hpp"
#include "runs.hpp"
#include "workers.hpp"

namespace {

using namespace align;

TEST(Workers, DoTheWorkOfManyCallers) {
    Workers workers(3);
    std::vector<std::thread> callers;
    std::atomic<std::size_t> sum{0};
    for (int caller = 0; caller < 8; ++caller)
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round)
                workers.run(20, [&](std::size_t index) { sum += index; });
        });
    for (std::thread &caller : callers)
        caller.join();
    EXPECT_EQ(sum, 8U * 50 * 190);
}

TEST(Workers, ThrowTheErrorOfTheFirstItemThatFails) {
    Workers workers(4);
    for (int round = 0; round < 100; ++round) {
        std::atomic<int> done{0};
        try {
            workers.run(1000, [&](std::size_t index) {
                ++done;
                if (index >= 5)
                    throw InputError("no", index);
            });
            FAIL();
        } catch (const InputError &error) {
            EXPECT_EQ(error.index, 5U);
        }
        EXPECT_LT(done, 1000); // nothing more is started
    }
}

TEST(Workers, FinishWhatWasStartedBeforeTheScopeIsLeft) {
    Workers workers(2);
    for (int round = 0; round < 100; ++round) {
        std::atomic<int> running{0};
        const std::function<void(std::size_t)> work = [&](std::size_t) {
            ++running;
            std::this_thread::yield();
            --running;
        };
        { const auto pending = workers.start(100, work); }
        EXPECT_EQ(running, 0);
    }
}

TEST(Workers, DoNothingForNothing) {
    Workers workers(2);
    workers.run(0, [](std::size_t) { FAIL(); });
}

TEST(Runs, AreAloneWhereNothingElseRuns) {
    Runs runs;
    {
        const Runs::Entered first(runs);
        EXPECT_TRUE(first.alone());
        const Runs::Entered second(runs);
        EXPECT_FALSE(second.alone());
        EXPECT_TRUE(first.alone()); // as it began
    }
    const Runs::Entered third(runs);
    EXPECT_TRUE(third.alone());
}

} // namespace
