// What surrounds graphs on a GPU: the options of the provider, ONNX Runtime's messages, and the lock for captures.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "capture.hpp"
#include "cuda_provider.hpp"

namespace {

using namespace align;

TEST(Provider, HasTheOptionsOfThePythonRuntime) {
    std::map<std::string, std::string> expected{{"prefer_nhwc", "1"},
                                                {"use_tf32", "0"},
                                                {"fuse_conv_bias", "0"},
                                                {"cudnn_conv_algo_search", "HEURISTIC"},
                                                {"cudnn_conv_use_max_workspace", "1"}};
    EXPECT_EQ(Provider::options_of("fp32"), expected);
    EXPECT_EQ(Provider::options_of("another"), expected);
    expected["use_tf32"] = "1";
    EXPECT_EQ(Provider::options_of("fp16"), expected);
    expected["prefer_nhwc"] = "0";
    EXPECT_EQ(Provider::options_of("int8"), expected);
}

TEST(Reason, IsInTheWordsOfTheLibraryThatFailed) {
    EXPECT_EQ(
        reason_of("/onnxruntime_src/cuda_call.cc:154 std::conditional_t<THRW, void> onnxruntime::CudaCall(ERRTYPE) "
                  "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=vm ; file=a.cc"),
        "CUDA failure 700: an illegal memory access was encountered");
    EXPECT_EQ(reason_of("x\nCUDNN_FE failure 8: HEURISTIC_QUERY_FAILED ; GPU=0"),
              "CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED");
    EXPECT_EQ(reason_of("a failure 1: of something; CUBLAS failure 3: NOT_INITIALIZED"),
              "CUBLAS failure 3: NOT_INITIALIZED");
    EXPECT_EQ(
        reason_of("/src/provider_bridge.cc:1849 Failed to load library libx.so with error: liby.so.12: no such file"),
        "Failed to load library libx.so with error: liby.so.12: no such file");
    EXPECT_EQ(reason_of("\n Non-zero status code\nand a stack"), "Non-zero status code");
    EXPECT_EQ(reason_of("CUDA failure x: of no number"), "CUDA failure x: of no number");
    EXPECT_EQ(reason_of(" \n"), "unknown reason");
    EXPECT_EQ(reason_of(""), "unknown reason");
}

TEST(CaptureLock, LetsACaptureGoBeforeSharersThatNeverEnd) {
    CaptureLock lock;
    std::atomic<bool> stop{false};
    std::atomic<int> inside{0};
    std::vector<std::thread> sharers;
    for (int i = 0; i < 3; ++i)
        sharers.emplace_back([&] {
            while (!stop) {
                const std::shared_lock shared(lock);
                ++inside;
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                --inside;
            }
        });
    for (int round = 0; round < 20; ++round) {
        const std::unique_lock alone(lock);
        EXPECT_EQ(inside, 0);
    }
    stop = true;
    for (std::thread &sharer : sharers)
        sharer.join();
}

} // namespace
