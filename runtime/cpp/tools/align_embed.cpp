// The tool align_embed: images and texts to embeddings, as JSON lines or as a .npy file.
//
//     align_embed BUNDLE [--precision P] [--device D] [--threads N] [--npy FILE] INPUT...
//
// An input is the path of an image (JPEG or PNG), or a text after "text:". "-" reads inputs from lines of the standard
// input. Without --npy each row is a line {"input": ..., "embedding": [...]}.
#include <align_runtime.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

namespace {

constexpr std::size_t BATCH = 64; // inputs in memory at a time
const std::string TEXT = "text:";

struct Arguments {
    std::string bundle, npy;
    align_runtime::Options options;
    std::vector<std::string> inputs;
};

bool is_text(const std::string &input) {
    return input.compare(0, TEXT.size(), TEXT) == 0;
}

std::optional<Arguments> parse(int argc, char **argv) {
    Arguments result;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "-") {
            for (std::string line; std::getline(std::cin, line);)
                result.inputs.push_back(line);
        } else if (argument.compare(0, 2, "--") != 0) {
            if (result.bundle.empty())
                result.bundle = argument;
            else
                result.inputs.push_back(argument);
        } else if (++i == argc) {
            return std::nullopt;
        } else if (argument == "--precision") {
            result.options.precision = argv[i];
        } else if (argument == "--device") {
            result.options.device = argv[i];
        } else if (argument == "--threads") {
            result.options.threads = std::atoi(argv[i]);
        } else if (argument == "--npy") {
            result.npy = argv[i];
        } else {
            return std::nullopt;
        }
    }
    const bool texts = std::any_of(result.inputs.begin(), result.inputs.end(), is_text);
    const bool images = !std::all_of(result.inputs.begin(), result.inputs.end(), is_text);
    result.options.towers = texts && images ? "vision,text" : texts ? "text" : "vision"; // those that are needed
    return result.bundle.empty() || result.inputs.empty() ? std::nullopt : std::optional(result);
}

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw std::runtime_error(path + " cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

// The embeddings of `inputs` from `first` to `last`, which are all texts or all images.
align_runtime::Matrix embed(const align_runtime::Model &model, const std::vector<std::string> &inputs,
                            std::size_t first, std::size_t last) {
    std::vector<std::string> contents;
    for (std::size_t i = first; i < last; ++i)
        contents.push_back(is_text(inputs[i]) ? inputs[i].substr(TEXT.size()) : read_file(inputs[i]));
    if (is_text(inputs[first]))
        return model.embed_texts(contents);
    std::vector<align_bytes> files;
    for (const std::string &content : contents)
        files.push_back({reinterpret_cast<const std::uint8_t *>(content.data()), content.size()});
    return model.embed_encoded(files);
}

std::string json_string(const std::string &text) {
    std::string result = "\"";
    for (const char character : text) {
        char escape[8];
        if (character == '"' || character == '\\')
            result += '\\';
        if (static_cast<unsigned char>(character) < 0x20) {
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(character));
            result += escape;
        } else {
            result += character;
        }
    }
    return result + '"';
}

void print_json(const std::string &input, align_runtime::View row) {
    std::printf("{\"input\": %s, \"embedding\": [", json_string(input).c_str());
    for (std::size_t i = 0; i < row.size(); ++i)
        std::printf("%s%.9g", i == 0 ? "" : ", ", static_cast<double>(row[i]));
    std::printf("]}\n");
}

// Format 1.0 of numpy: a header that is padded to 64 bytes, then the rows.
std::string npy_header(std::size_t rows, std::size_t dim) {
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                       std::to_string(dim) + "), }";
    text.append(63 - (10 + text.size()) % 64, ' ');
    text += '\n';
    const auto size = static_cast<unsigned>(text.size());
    return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(size & 0xff) + static_cast<char>(size >> 8) + text;
}

void run(const Arguments &arguments) {
    const align_runtime::Model model(arguments.bundle, arguments.options);
    std::ofstream npy;
    if (!arguments.npy.empty()) {
        npy.open(arguments.npy, std::ios::binary);
        npy << npy_header(arguments.inputs.size(), model.embedding_dim());
    }
    const std::vector<std::string> &inputs = arguments.inputs;
    for (std::size_t first = 0, last = 0; first < inputs.size(); first = last) {
        while (last < inputs.size() && last - first < BATCH && is_text(inputs[last]) == is_text(inputs[first]))
            ++last;
        const align_runtime::Matrix rows = embed(model, inputs, first, last);
        if (npy.is_open())
            npy.write(reinterpret_cast<const char *>(rows.data()),
                      static_cast<std::streamsize>(rows.values().size() * sizeof(float)));
        else
            for (std::size_t i = first; i < last; ++i)
                print_json(inputs[i], rows[i - first]);
    }
    if (npy.is_open() && !npy.flush())
        throw std::runtime_error(arguments.npy + " cannot be written");
}

} // namespace

int main(int argc, char **argv) {
    const std::optional<Arguments> arguments = parse(argc, argv);
    if (!arguments) {
        std::cerr << "usage: align_embed BUNDLE [--precision P] [--device D] [--threads N] [--npy FILE] INPUT...\n"
                     "An input is the path of an image, text:WORDS, or - for lines of the standard input.\n";
        return 2;
    }
    try {
        run(*arguments);
    } catch (const std::exception &error) {
        std::cerr << "align_embed: " << error.what() << "\n";
        return 1;
    }
}
