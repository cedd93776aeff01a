// Children that are forked while other threads are inside of the library. It needs ONNX Runtime and, in
// ALIGN_TEST_BUNDLE, a bundle.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "align_runtime.hpp"
#include "capture.hpp"

namespace {

constexpr unsigned CHILD_SECONDS = 20; // after which a child is one that hangs

// What a child does with a model of its own, and with one of its parent.
int in_a_child(const char *bundle, const align_runtime::Model &of_parent) {
    alarm(CHILD_SECONDS);
    try {
        align_runtime::Options options;
        options.threads = 1;
        options.towers = "text";
        const align_runtime::Model own(bundle, options);
        own.embed_texts({"a photo of a cat"});
    } catch (const std::exception &) {
        return 2;
    }
    try {
        of_parent.embed_texts({"a photo of a cat"});
        return 3;
    } catch (const align_runtime::ConfigurationError &) {
        return 0;
    }
}

TEST(Forks, LeaveChildrenTheLockForCaptures) {
    std::thread([] { align::captures().lock(); }).join();
    const pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        align::captures().lock();
        _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    align::captures().unlock();
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
}

TEST(Forks, LeaveChildrenThatOpenModels) {
    const char *bundle = std::getenv("ALIGN_TEST_BUNDLE");
    if (bundle == nullptr)
        GTEST_SKIP() << "ALIGN_TEST_BUNDLE names no bundle; pytest tests/cpp gives one";
    const align_runtime::Model model(bundle);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i)
        threads.emplace_back([&] {
            while (!stop)
                model.max_length(); // little but a look at the table of models
        });
    for (int round = 0; round < 10; ++round) {
        const pid_t child = fork();
        if (child == 0)
            _exit(in_a_child(bundle, model));
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
        EXPECT_EQ(WEXITSTATUS(status), 0);
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
}

} // namespace
