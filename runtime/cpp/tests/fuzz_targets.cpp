#include "fuzz_targets.hpp"

#include <algorithm>
#include <vector>

#include "encoded_images.hpp"
#include "errors.hpp"
#include "graph_file.hpp"
#include "manifest.hpp"
#include "resample.hpp"
#include "tokenizer.hpp"
#include "vectors.hpp"

namespace align {

namespace {

constexpr Limits SMALL{1 << 16}; // pixels; a fuzzer wants many small images

template <class Work> bool refusing(Work work) {
    try {
        work();
        return true;
    } catch (const Error &) { // an error with a status, as the C API returns it
        return false;
    }
}

bool text(std::string_view data) {
    static const Tokenizer tokenizer = Tokenizer::from_json(vectors::file("tokenizer.json"), 512, 0);
    return refusing([&] { tokenizer.encode(data); });
}

bool tokenizer_file(std::string_view data) {
    return refusing([&] { Tokenizer::from_json(data, 64, 0).encode("A photo of [MASK] é <img> ##s\xe6\x96\x87"); });
}

// The first bytes are the shape, the stride, the sizes and the filter; the rest is the image.
bool image(std::string_view data) {
    constexpr std::size_t HEAD = 8;
    if (data.size() < HEAD)
        return false;
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(data[at]); };
    const auto size = [&](std::size_t at) {
        return Json{{"height", byte(at) % 64 + 1}, {"width", byte(at + 1) % 64 + 1}};
    };
    const Json values{{"size", byte(2) < 128 ? Json{{"shortest_edge", byte(3) % 64 + 1}} : size(3)},
                      {"resample", byte(5) % 6},
                      {"crop_size", size(6)},
                      {"rescale_factor", nullptr},
                      {"rescale_offset", false},
                      {"image_mean", nullptr},
                      {"image_std", nullptr},
                      {"include_top", false}};
    const Preprocessing config = Preprocessing::from_json(values);
    const int channels = byte(2) % 5;
    const std::size_t width = byte(0) % 80, stride = width * static_cast<std::size_t>(channels) + byte(2) % 3;
    const std::vector<std::uint8_t> rows(data.begin() + HEAD, data.end()); // exactly: a sanitizer sees what is beyond
    const std::size_t height = stride == 0 ? byte(1) : rows.size() / stride;
    std::vector<std::uint8_t> pixels(config.pixels_bytes());
    const Background background = byte(5) < 128 ? Background() : Colour{1, 2, 3};
    return refusing([&] {
        preprocess(config, {rows.data(), width, height, stride, channels}, pixels.data(), background, SMALL);
    });
}

bool encoded(std::string_view data) {
    const Background background = data.size() % 2 == 0 ? Background() : Colour{1, 2, 3};
    return refusing([&] { decode_image(data, SMALL, background); });
}

bool manifest(std::string_view data) {
    return refusing([&] { Manifest::from_json(data, MANIFEST_NAME); });
}

bool graph_file(std::string_view data) {
    return refusing([&] { check_graph_bytes(data, "model.onnx", "model.onnx.data"); });
}

} // namespace

const FuzzTarget FUZZ_TARGETS[6] = {{"text", text},         {"tokenizer_file", tokenizer_file},
                                    {"image", image},       {"encoded", encoded},
                                    {"manifest", manifest}, {"graph_file", graph_file}};

} // namespace align
