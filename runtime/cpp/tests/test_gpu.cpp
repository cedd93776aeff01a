// The code for GPUs with the provider and the memory of a CPU. It needs ONNX Runtime and, in ALIGN_TEST_BUNDLE, a
// bundle.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "bundle.hpp"
#include "cpu_runner.hpp"
#include "cuda_runner.hpp"
#include "errors.hpp"

namespace {

using namespace align;

class HostMemory : public DeviceMemory {
public:
    void enter() override {}
    void to_device(void *device, const void *host, std::size_t bytes) override { std::memcpy(device, host, bytes); }
    void to_host(void *host, const void *device, std::size_t bytes) override { std::memcpy(host, device, bytes); }
};

Provider host() {
    return {"CPUExecutionProvider", "Cpu", std::make_unique<HostMemory>(), 0};
}

// Counts the runners that are between their inputs and their output, and takes its time there.
class WatchedMemory : public HostMemory {
public:
    void to_device(void *device, const void *host, std::size_t bytes) override {
        most = std::max(most.load(), ++inside);
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        HostMemory::to_device(device, host, bytes);
    }
    void to_host(void *host, const void *device, std::size_t bytes) override {
        HostMemory::to_host(host, device, bytes);
        --inside;
    }

    static inline std::atomic<int> inside{0}, most{0};
};

class Gpu : public testing::Test {
protected:
    void SetUp() override {
        const char *folder = std::getenv("ALIGN_TEST_BUNDLE");
        if (folder == nullptr)
            GTEST_SKIP() << "ALIGN_TEST_BUNDLE names no bundle; pytest tests/cpp gives one";
        bundle.emplace(Bundle::open(folder));
    }

    std::optional<Bundle> bundle;
};

TEST_F(Gpu, GivesTheEmbeddingsOfTheCpuForAnyNumberAndLengthOfTexts) {
    const OnnxRuntime &runtime = OnnxRuntime::load("");
    const ModelFacts &model = bundle->manifest().model;
    const Graph &graph = bundle->graph(TEXT, "fp32", GPU_TARGET);
    const std::string file = bundle->graph_file(graph, false);
    CpuRunner expected(runtime, file, 1);
    CudaRunner runner(runtime, file, Buckets::of(graph, model), model.embedding_dim, host());
    for (const std::int64_t rows : {1, 5, 32, 40})
        for (const std::int64_t length : {3, 8, 11}) {
            const auto count = static_cast<std::size_t>(rows);
            std::vector<std::int64_t> ids(count * static_cast<std::size_t>(length)), mask(ids.size(), 1);
            for (std::size_t i = 0; i < ids.size(); ++i)
                ids[i] = static_cast<std::int64_t>(i * 7 % 100);
            const std::vector<Input> inputs{{"input_ids", ElementType::int64, {rows, length}, ids.data()},
                                            {"attention_mask", ElementType::int64, {rows, length}, mask.data()}};
            std::vector<float> wanted(count * model.embedding_dim), got(wanted.size());
            expected.run(inputs, {count, model.embedding_dim, wanted.data()});
            runner.run(inputs, {count, model.embedding_dim, got.data()});
            for (std::size_t i = 0; i < got.size(); ++i)
                ASSERT_NEAR(got[i], wanted[i], 1e-6) << rows << " texts of " << length;
        }
    std::vector<std::int64_t> longer(100);
    const std::vector<Input> inputs{{"input_ids", ElementType::int64, {1, 100}, longer.data()},
                                    {"attention_mask", ElementType::int64, {1, 100}, longer.data()}};
    std::vector<float> row(model.embedding_dim);
    EXPECT_THROW(runner.run(inputs, {1, model.embedding_dim, row.data()}), InputError);
}

// ONNX Runtime captures a CUDA graph in the first run of a shape, which other threads must not disturb.
TEST_F(Gpu, RunsTheFirstOfAShapeAlone) {
    const OnnxRuntime &runtime = OnnxRuntime::load("");
    const ModelFacts &model = bundle->manifest().model;
    const Graph &graph = bundle->graph(VISION, "fp32", GPU_TARGET);
    const std::string file = bundle->graph_file(graph, false);
    const auto size = static_cast<std::int64_t>(bundle->manifest().preprocessing.pixels_height());
    const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(size * size * 3));
    const auto run = [&](CudaRunner &runner) {
        std::vector<float> row(model.embedding_dim);
        runner.run({{"pixels", ElementType::uint8, {1, size, size, 3}, pixels.data()}},
                   {1, model.embedding_dim, row.data()});
    };
    const auto watched = [] { return Provider{"CPUExecutionProvider", "Cpu", std::make_unique<WatchedMemory>(), 0}; };
    CudaRunner one(runtime, file, Buckets::of(graph, model), model.embedding_dim, watched());
    CudaRunner other(runtime, file, Buckets::of(graph, model), model.embedding_dim, watched());
    for (const int expected : {1, 2}) { // later runs share the GPU
        WatchedMemory::most = 0;
        std::thread thread([&] { run(one); });
        run(other);
        thread.join();
        EXPECT_EQ(WatchedMemory::most, expected);
    }
}

TEST_F(Gpu, RefusesAGraphOfAnotherWidth) {
    const std::string file = bundle->graph_file(bundle->graph(VISION, "fp32", GPU_TARGET), false);
    EXPECT_THROW(CudaRunner(OnnxRuntime::load(""), file, {{1, 8}, {}}, 7, host()), BundleError);
}

TEST_F(Gpu, ThatIsMissingIsAnError) {
    EXPECT_THROW(Provider::cuda(OnnxRuntime::load(""), 0), BackendUnavailableError);
}

} // namespace
