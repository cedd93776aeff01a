// The code for GPUs with the provider and the memory of a CPU. It needs ONNX Runtime and, in ALIGN_TEST_BUNDLE, a
// bundle.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "bundle.hpp"
#include "cuda_runner.hpp"
#include "errors.hpp"
#include "session_runner.hpp"

namespace {

using namespace align;

const OnnxRuntime &any_runtime() {
    const std::string unnamed;
    return OnnxRuntime::load(unnamed);
}

class HostMemory : public DeviceMemory {
public:
    void enter() override {}
    void to_device(void *device, const void *host, std::size_t bytes) override { std::memcpy(device, host, bytes); }
    void to_host(void *host, const void *device, std::size_t bytes) override { std::memcpy(host, device, bytes); }
};

// `sessions` counts those that are opened.
Provider host(std::unique_ptr<DeviceMemory> memory = std::make_unique<HostMemory>(), int *sessions = nullptr) {
    return {"Cpu", std::move(memory), 0, [sessions](OrtSessionOptions *, bool) { // a CPU's provider is there anyway
                if (sessions != nullptr)
                    ++*sessions;
            }};
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
    const OnnxRuntime &runtime = any_runtime();
    const ModelFacts &model = bundle->manifest().model;
    const Graph &graph = bundle->graph(TEXT, "fp32", GPU_TARGET);
    const std::string file = bundle->graph_file(graph, false);
    SessionRunner expected(runtime, file, 1);
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
    const OnnxRuntime &runtime = any_runtime();
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
    const auto watched = [] { return host(std::make_unique<WatchedMemory>()); };
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

// A convolution keeps the plan of its last shape only. The file of the graph goes away once it is loaded.
TEST_F(Gpu, OpensASessionForEachBatchOfImagesAndOneForAllTextsAtOnce) {
    const OnnxRuntime &runtime = any_runtime();
    const ModelFacts &model = bundle->manifest().model;
    const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "align-sessions";
    const auto moved = [&](const Graph &graph) {
        std::filesystem::remove_all(folder);
        std::filesystem::create_directories(folder);
        const std::filesystem::path file = bundle->graph_file(graph, false);
        for (const std::string &part : graph.files()) {
            const std::filesystem::path name = std::filesystem::path(part).filename();
            std::filesystem::copy_file(file.parent_path() / name, folder / name);
        }
        return (folder / file.filename()).string();
    };
    std::vector<float> rows(9 * model.embedding_dim);

    const Graph &vision = bundle->graph(VISION, "fp32", GPU_TARGET);
    const auto size = static_cast<std::int64_t>(bundle->manifest().preprocessing.pixels_height());
    const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(9 * size * size * 3));
    int opened = 0;
    const auto counted = [&] { return host(std::make_unique<HostMemory>(), &opened); };
    CudaRunner images(runtime, moved(vision), {{1, 8, 32}, {}}, model.embedding_dim, counted());
    EXPECT_EQ(opened, 3);
    std::filesystem::remove_all(folder);
    const auto run_images = [&](std::int64_t count) {
        images.run({{"pixels", ElementType::uint8, {count, size, size, 3}, pixels.data()}},
                   {static_cast<std::size_t>(count), model.embedding_dim, rows.data()});
    };
    for (const std::int64_t count : {8, 1, 5, 9})
        run_images(count);
    EXPECT_EQ(opened, 3);

    opened = 0;
    const Graph &text = bundle->graph(TEXT, "fp32", GPU_TARGET);
    CudaRunner texts(runtime, moved(text), {{1, 8, 32}, {8, 16}}, model.embedding_dim, counted());
    std::filesystem::remove_all(folder);
    for (const std::int64_t count : {1, 5, 9})
        for (const std::int64_t length : {8, 11}) {
            const std::vector<std::int64_t> ids(static_cast<std::size_t>(count * length), 1);
            texts.run({{"input_ids", ElementType::int64, {count, length}, ids.data()},
                       {"attention_mask", ElementType::int64, {count, length}, ids.data()}},
                      {static_cast<std::size_t>(count), model.embedding_dim, rows.data()});
        }
    EXPECT_EQ(opened, 1);
}

TEST_F(Gpu, RefusesAGraphOfAnotherWidth) {
    const std::string file = bundle->graph_file(bundle->graph(VISION, "fp32", GPU_TARGET), false);
    EXPECT_THROW(CudaRunner(any_runtime(), file, {{1, 8}, {}}, 7, host()), BundleError);
}

TEST_F(Gpu, ThatIsMissingIsAnError) {
    EXPECT_THROW(Provider::cuda(any_runtime(), 0, "fp32"), BackendUnavailableError);
}

} // namespace
