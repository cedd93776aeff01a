#include "model.hpp"

#include <algorithm>
#include <array>

#include "errors.hpp"
#include "onnxruntime_library.hpp"
#include "processors.hpp"

namespace align {

namespace {

constexpr const char *TOKENIZER = "tokenizer.json";

[[noreturn]] void not_loaded(const std::string &missing) {
    throw ConfigurationError(
        "the " + missing + " tower is not loaded; open the bundle with the towers 'vision,text' or '" + missing + "'");
}

Tokenizer open_tokenizer(const Bundle &bundle) {
    const ModelFacts &facts = bundle.manifest().model;
    try {
        Tokenizer tokenizer =
            Tokenizer::from_json(bundle.read(TOKENIZER, MAX_TOKENIZER_BYTES), facts.max_length, facts.pad_token_id);
        if (tokenizer.vocab_size() > facts.vocab_size)
            throw BundleError(bundle.folder() + ": " + TOKENIZER + " has ids up to " +
                              std::to_string(tokenizer.vocab_size() - 1) + ", but the model has " +
                              std::to_string(facts.vocab_size) +
                              " token embeddings; they are from different checkpoints, export again");
        return tokenizer;
    } catch (const ConfigurationError &error) {
        throw BundleError(bundle.folder() + ": " + TOKENIZER + ": " + error.message +
                          "; it is not as align-export writes it, export again");
    }
}

} // namespace

Model::Model(const std::string &bundle, const LoadOptions &options)
    : bundle_(Bundle::open(bundle, options.manifest_sha256)), options_(options) {
    const std::string variant = options.device.variant_of(options.precision);
    std::vector<const Graph *> graphs;
    for (const auto &[name, wanted] : {std::pair(VISION, options.vision), std::pair(TEXT, options.text)})
        if (wanted)
            graphs.push_back(&bundle_.graph(name, variant, options.device.target));
    OnnxRuntime::load(options.onnxruntime_library); // its absence is an error before the files are read
    std::array<std::optional<Tower>, 2> opened;
    const auto runs = std::make_shared<Runs>();
    {
        // On a CPU in parallel, since loading one of them keeps a single core busy.
        Workers openers(options.device.on_cpu ? static_cast<int>(graphs.size()) : 1);
        if (options.device.on_cpu) // for all at once: each session checks only its own
            check_startable(static_cast<int>(graphs.size()) * (options.thread_count() - 1));
        openers.run(graphs.size(), [&](std::size_t i) { opened[i].emplace(bundle_, *graphs[i], options, runs); });
    }
    int streams = 1, waiting = 0;
    for (std::size_t i = 0; i < graphs.size(); ++i) {
        streams = std::max(streams, static_cast<int>(opened[i]->streams()));
        waiting += opened[i]->in_flight() > 1 ? opened[i]->in_flight() : 0; // threads, for a GPU
    }
    decoders_ = std::make_unique<Workers>(options.thread_count());
    workers_ = std::make_unique<Workers>(std::max(streams, waiting));
    for (std::size_t i = 0; i < graphs.size(); ++i)
        if (graphs[i]->tower == VISION)
            images_.emplace(std::move(*opened[i]), bundle_.manifest().preprocessing, *decoders_, *workers_);
        else
            texts_.emplace(std::move(*opened[i]), open_tokenizer(bundle_), facts().pad_token_id, *decoders_, *workers_);
}

void Model::prepare(const ImageView &image, std::uint8_t *pixels) const {
    preprocess(preprocessing(), image, pixels, options_.background, options_.limits);
}

void Model::prepare(std::string_view file, std::uint8_t *pixels) const {
    const DecodedImage image = decode_image(file, options_.limits, options_.background);
    preprocess(preprocessing(), image.view(), pixels, options_.background, options_.limits);
}

const ImageEmbedder &Model::images() const {
    if (!images_)
        not_loaded(VISION);
    return *images_;
}

const TextEmbedder &Model::texts() const {
    if (!texts_)
        not_loaded(TEXT);
    return *texts_;
}

} // namespace align
