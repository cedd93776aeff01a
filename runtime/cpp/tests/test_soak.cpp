// One model under calls of many threads, good and bad ones: every row is the golden one of its input. It needs ONNX
// Runtime and, in ALIGN_TEST_BUNDLE, a bundle; ALIGN_SOAK_SECONDS makes it last.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "align_runtime.hpp"
#include "json.hpp"

namespace {

using align_runtime::Matrix;
using align_runtime::Model;
using Clock = std::chrono::steady_clock;

constexpr std::size_t THREADS = 8;
constexpr float TOLERANCE = 2e-6F; // of FP32 graphs; a row alone and in any batch differ by less

std::string content(const std::string &path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

// The rows of a .npy file of float32: they stand behind a header, whose length stands at its ninth byte.
std::vector<float> rows_of(const std::string &path) {
    const std::string bytes = content(path);
    const std::size_t start = 10 + static_cast<unsigned char>(bytes.at(8)) +
                              256 * static_cast<std::size_t>(static_cast<unsigned char>(bytes.at(9)));
    std::vector<float> rows((bytes.size() - start) / sizeof(float));
    std::memcpy(rows.data(), bytes.data() + start, rows.size() * sizeof(float));
    return rows;
}

struct Golden {
    std::vector<std::string> texts, files;
    std::vector<float> text_rows, image_rows;

    explicit Golden(const std::string &folder)
        : texts(align::Json::parse(content(folder + "/texts.json")).get<std::vector<std::string>>()),
          text_rows(rows_of(folder + "/text_embeds.npy")), image_rows(rows_of(folder + "/image_embeds.npy")) {
        for (const align::Json &name : align::Json::parse(content(folder + "/images.json")))
            files.push_back(content(folder + "/images/" + name.get<std::string>()));
    }
};

class Soak {
public:
    explicit Soak(const std::string &bundle) : model(bundle), golden_(bundle + "/golden") {}

    // Calls the model with lists of inputs until `end`.
    void run(unsigned seed, Clock::time_point end) {
        std::mt19937 random(seed);
        try {
            do {
                random() % 2 == 0 ? embed_texts(random) : embed_files(random);
                ++calls;
            } while (Clock::now() < end);
        } catch (const std::exception &error) {
            fault(error.what());
        }
    }

    void fault(const std::string &text) {
        const std::lock_guard guard(mutex_);
        faults.push_back(text);
    }

    Model model;
    std::atomic<std::size_t> calls{0};
    std::vector<std::string> faults;

private:
    std::vector<std::size_t> chosen(std::mt19937 &random, std::size_t among) const {
        std::vector<std::size_t> places(std::vector<std::size_t>{1, 2, 3, 8}[random() % 4]);
        for (std::size_t &place : places)
            place = random() % among;
        return places;
    }

    void embed_texts(std::mt19937 &random) {
        const std::vector<std::size_t> places = chosen(random, golden_.texts.size());
        std::vector<std::string> texts;
        for (const std::size_t place : places)
            texts.push_back(golden_.texts[place]);
        if (random() % 20 == 0) {
            texts.back() = "not UTF-8: \xff";
            refused([&] { model.embed_texts(texts); }, texts.size() - 1);
        } else {
            compare(model.embed_texts(texts), places, golden_.text_rows);
        }
    }

    void embed_files(std::mt19937 &random) {
        const std::vector<std::size_t> places = chosen(random, golden_.files.size());
        std::vector<align_bytes> files;
        for (const std::size_t place : places)
            files.push_back(
                {reinterpret_cast<const std::uint8_t *>(golden_.files[place].data()), golden_.files[place].size()});
        if (random() % 20 == 0) {
            files.back().size = 20;
            refused([&] { model.embed_encoded(files); }, files.size() - 1);
        } else {
            compare(model.embed_encoded(files), places, golden_.image_rows);
        }
    }

    template <class Call> void refused(Call call, std::size_t place) {
        try {
            call();
            fault("a bad input was embedded");
        } catch (const align_runtime::InputError &error) {
            if (error.index() != static_cast<std::int64_t>(place))
                fault("index " + std::to_string(error.index()) + " for input " + std::to_string(place));
        }
    }

    void compare(const Matrix &rows, const std::vector<std::size_t> &places, const std::vector<float> &golden) {
        for (std::size_t row = 0; row < places.size(); ++row)
            for (std::size_t i = 0; i < rows.dim(); ++i)
                if (!(std::abs(rows[row][i] - golden.at(places[row] * rows.dim() + i)) <= TOLERANCE))
                    return fault("a row is not the golden one of its input");
    }

    Golden golden_;
    std::mutex mutex_;
};

TEST(Soak, RowsAreTheGoldenOnesInEveryThread) {
    const char *bundle = std::getenv("ALIGN_TEST_BUNDLE"), *length = std::getenv("ALIGN_SOAK_SECONDS");
    if (bundle == nullptr)
        GTEST_SKIP() << "ALIGN_TEST_BUNDLE names no bundle; pytest tests/cpp gives one";
    Soak soak(bundle);
    const Clock::time_point end = Clock::now() + std::chrono::seconds(length == nullptr ? 1 : std::atoi(length));
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < THREADS; ++seed)
        threads.emplace_back([&, seed] { soak.run(seed, end); });
    std::size_t others = 0;
    do { // others are opened and closed meanwhile
        align_runtime::Options options;
        options.threads = 1;
        Model(bundle, options).embed_texts({"a photo of a cat"});
        ++others;
    } while (Clock::now() < end);
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_EQ(soak.faults, std::vector<std::string>());
    EXPECT_GE(soak.calls, THREADS);
    std::printf("%zu calls, %zu other models\n", soak.calls.load(), others);
}

} // namespace
