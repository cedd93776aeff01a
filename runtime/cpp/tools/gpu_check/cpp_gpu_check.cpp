// Embeds fixed inputs on a device, measures the calls, and writes what compare.py compares with the Python runtime.
//
//     cpp_gpu_check BUNDLE DEVICE PRECISION OUTPUT [ROUNDS]
//
// OUTPUT/cpp.json has the measurements and errors, OUTPUT/NAME.f32 the embeddings of one call, float32. A part that
// fails is an entry in "errors"; the others go on. inputs.py makes the same inputs.
#include <align_runtime.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <thread>

#include <nlohmann/json.hpp>

namespace {

using align_runtime::Matrix;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t CELLS = 9; // an image is a grid of coloured cells
constexpr int WARM_UP = 5, THREADS = 4;
constexpr double THREADED_SECONDS = 3, MOST_SECONDS = 4; // of all rounds of one call

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// `count` images of a grid of CELLS × CELLS colours, from one linear congruential generator.
std::vector<std::uint8_t> images_of(std::size_t count, std::size_t height, std::size_t width) {
    std::uint32_t state = 1;
    std::vector<std::uint8_t> colours(count * CELLS * CELLS * 3), pixels;
    for (std::uint8_t &value : colours) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<std::uint8_t>(state >> 24);
    }
    pixels.reserve(count * height * width * 3);
    for (std::size_t i = 0; i < count; ++i)
        for (std::size_t y = 0; y < height; ++y)
            for (std::size_t x = 0; x < width; ++x) {
                const std::size_t cell = (i * CELLS + y * CELLS / height) * CELLS + x * CELLS / width;
                pixels.insert(pixels.end(), &colours[cell * 3], &colours[cell * 3] + 3);
            }
    return pixels;
}

// 32 captions of about the same length.
std::vector<std::string> captions() {
    std::vector<std::string> texts;
    for (const char *shape : {"circle", "star", "heart", "triangle"})
        for (const char *colour : {"red", "green", "blue", "white", "black", "yellow", "grey", "orange"})
            texts.push_back(std::string("a photo of a ") + colour + " " + shape);
    return texts;
}

// 20 texts of lengths from none to beyond the longest.
std::vector<std::string> mixed_texts() {
    const char *words[] = {"river", "evening", "seven", "caf\xc3\xa9", "blue", "walking"};
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < 20; ++i) {
        std::string text;
        for (std::size_t k = 0; k < i * 5; ++k)
            text += std::string(k == 0 ? "" : " ") + words[(i + k) % 6];
        texts.push_back(text);
    }
    return texts;
}

using Call = std::function<Matrix()>;

class Check {
public:
    Check(std::string folder, int rounds) : folder_(std::move(folder)), rounds_(rounds) {
        report_["errors"] = Json::object();
    }

    Json &report() { return report_; }
    bool failed() const { return !report_["errors"].empty(); }

    // Does one part, and writes the report; an error of the part is a part of the report.
    void part(const std::string &name, const std::function<void()> &work) {
        try {
            work();
        } catch (const std::exception &error) {
            report_["errors"][name] = error.what();
            std::cerr << name << ": " << error.what() << "\n";
        }
        std::ofstream(folder_ + "/cpp.json") << report_.dump(1) << "\n";
    }

    void measure(const std::string &name, const Call &call) {
        part(name, [&] {
            const Clock::time_point start = Clock::now();
            const Matrix rows = call();
            const double first = seconds_since(start);
            std::ofstream(folder_ + "/" + name + ".f32", std::ios::binary)
                .write(reinterpret_cast<const char *>(rows.data()),
                       static_cast<std::streamsize>(rows.values().size() * sizeof(float)));
            bool repeats = true;
            for (int i = 0; i < WARM_UP; ++i)
                repeats = call().values() == rows.values() && repeats;
            std::vector<double> times;
            const Clock::time_point measured = Clock::now();
            while (times.size() < 3 ||
                   (times.size() < static_cast<std::size_t>(rounds_) && seconds_since(measured) < MOST_SECONDS)) {
                const Clock::time_point one = Clock::now();
                call();
                times.push_back(seconds_since(one) * 1000);
            }
            std::sort(times.begin(), times.end());
            report_["calls"][name] = {
                {"rows", rows.rows()},
                {"dim", rows.dim()},
                {"median_ms", times[times.size() / 2]},
                {"min_ms", times.front()},
                {"p90_ms", times[times.size() * 9 / 10]},
                {"rounds", times.size()},
                {"first_ms", first * 1000},
                {"repeats_bit_by_bit", repeats},
            };
            expected_.emplace(name, rows);
            calls_.emplace(name, call);
        });
    }

    // All measured calls from THREADS threads at once, for `duration` seconds and at least once each, compared with the
    // rows of the single thread.
    void measure_threads(const std::string &name, double duration) {
        part(name, [&] {
            if (calls_.empty())
                throw std::runtime_error("no call worked");
            std::atomic<std::size_t> calls{0}, rows{0};
            std::map<std::string, std::atomic<std::size_t>> different;
            for (const auto &[call, rows_of_one] : expected_)
                different[call] = 0;
            std::vector<double> largest(THREADS);
            std::vector<std::string> errors(THREADS);
            std::vector<std::thread> threads;
            const Clock::time_point start = Clock::now();
            for (std::size_t t = 0; t < THREADS; ++t)
                threads.emplace_back([&, t] {
                    try {
                        auto next = std::next(calls_.begin(), static_cast<std::ptrdiff_t>(t % calls_.size()));
                        for (std::size_t step = 0; step < calls_.size() || seconds_since(start) < duration; ++step) {
                            const Matrix got = next->second();
                            const Matrix &wanted = expected_.at(next->first);
                            calls += 1;
                            rows += got.rows();
                            if (std::memcmp(got.data(), wanted.data(), got.values().size() * sizeof(float)) != 0)
                                different.at(next->first) += 1;
                            for (std::size_t i = 0; i < got.values().size(); ++i)
                                largest[t] = std::max(largest[t], std::abs(static_cast<double>(got.values()[i]) -
                                                                           static_cast<double>(wanted.values()[i])));
                            if (++next == calls_.end())
                                next = calls_.begin();
                        }
                    } catch (const std::exception &error) {
                        errors[t] = error.what();
                    }
                });
            for (std::thread &thread : threads)
                thread.join();
            Json differing = Json::object();
            for (const auto &[call, count] : different)
                if (count != 0)
                    differing[call] = count.load();
            report_[name] = {
                {"threads", THREADS},
                {"seconds", seconds_since(start)},
                {"calls", calls.load()},
                {"rows", rows.load()},
                {"calls_that_differ", differing},
                {"max_abs", *std::max_element(largest.begin(), largest.end())},
            };
            for (const std::string &error : errors)
                if (!error.empty())
                    throw std::runtime_error(error);
        });
    }

private:
    std::string folder_;
    int rounds_;
    Json report_;
    std::map<std::string, Matrix> expected_;
    std::map<std::string, Call> calls_;
};

void run(Check &check, const std::string &bundle, const align_runtime::Options &options) {
    std::optional<align_runtime::Model> model;
    check.part("open", [&] {
        const Clock::time_point start = Clock::now();
        model.emplace(bundle, options);
        check.report()["open_s"] = seconds_since(start);
    });
    if (!model)
        return;
    const auto [height, width] = model->image_size();
    const std::size_t bytes = height * width * 3;
    const std::vector<std::uint8_t> pixels = images_of(32, height, width), photos = images_of(8, 480, 640);
    for (const std::size_t count : {1U, 8U, 32U}) {
        const std::vector<std::uint8_t> some(pixels.begin(),
                                             pixels.begin() + static_cast<std::ptrdiff_t>(count * bytes));
        check.measure("pixels-" + std::to_string(count), [&, some] { return model->embed_pixels(some); });
    }
    std::vector<align_image> images;
    for (std::size_t i = 0; i < 8; ++i)
        images.push_back({&photos[i * 640 * 480 * 3], 640, 480, 0, 3});
    check.measure("images-8", [&] { return model->embed_images(images); });
    const std::vector<std::string> same = captions(), mixed = mixed_texts();
    check.measure("texts-1", [&] { return model->embed_texts({same[0]}); });
    check.measure("texts-32", [&] { return model->embed_texts(same); });
    check.measure("mixed-texts", [&] { return model->embed_texts(mixed); });
    check.measure_threads("threads", THREADED_SECONDS);
    check.part("reopen", [&] {
        Clock::time_point start = Clock::now();
        model.reset();
        check.report()["close_s"] = seconds_since(start);
        start = Clock::now();
        model.emplace(bundle, options);
        check.report()["reopen_s"] = seconds_since(start);
    });
    if (model) // all first runs of a model at once
        check.measure_threads("cold_threads", 0);
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        std::cerr << "usage: cpp_gpu_check BUNDLE DEVICE PRECISION OUTPUT [ROUNDS]\n";
        return 2;
    }
    align_runtime::Options options;
    options.device = argv[2];
    options.precision = argv[3];
    Check check(argv[4], argc > 5 ? std::max(std::atoi(argv[5]), 1) : 50);
    check.report()["version"] = align_version();
    check.report()["device"] = options.device;
    check.report()["precision"] = options.precision;
    run(check, argv[1], options);
    std::cout << check.report().dump(1) << std::endl;
    return check.failed() ? 1 : 0;
}
