// Classifies an image in C++: classify BUNDLE IMAGE LABEL... prints the probability of each label.
#include <align_runtime.hpp>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>

int main(int argc, char **argv) {
    if (argc < 4)
        return std::fputs("usage: classify BUNDLE IMAGE LABEL...\n", stderr), 2;
    std::ifstream file(argv[2], std::ios::binary);
    const std::string image{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::string> captions;
    for (int i = 3; i < argc; ++i)
        captions.push_back(std::string("a photo of a ") + argv[i]);
    try {
        const align_runtime::Model model(argv[1]);
        const auto images = model.embed_encoded({{reinterpret_cast<const std::uint8_t *>(image.data()), image.size()}});
        const auto logits = model.logits(images, model.embed_texts(captions));
        float sum = 0;
        for (const float logit : logits[0])
            sum += std::exp(logit - logits[0][0]);
        for (std::size_t i = 0; i < captions.size(); ++i)
            std::printf("%.4f %s\n", static_cast<double>(std::exp(logits[0][i] - logits[0][0]) / sum), argv[3 + i]);
    } catch (const align_runtime::Error &error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
