// The model: texts and images in, unit-length embeddings out. Any number of threads may call one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"
#include "encoded_images.hpp"
#include "image_embedding.hpp"
#include "load_options.hpp"
#include "text_embedding.hpp"
#include "workers.hpp"

namespace align {

class Model {
public:
    // Opens a bundle. Throws as align_open says.
    Model(const std::string &bundle, const LoadOptions &options);

    const ModelFacts &facts() const { return bundle_.manifest().model; }
    const Preprocessing &preprocessing() const { return bundle_.manifest().preprocessing; }

    // Writes the pixels, uint8 (height, width, 3), of an image or of the content of an image file. Throws InputError.
    void prepare(const ImageView &image, std::uint8_t *pixels) const;
    void prepare(std::string_view file, std::uint8_t *pixels) const;

    // The tower with its preparation of inputs. Throws ConfigurationError where it is not loaded.
    const ImageEmbedder &images() const;
    const TextEmbedder &texts() const;

private:
    Bundle bundle_;
    LoadOptions options_;
    // Threads that prepare inputs, and threads that run streams. They end after everything that uses them.
    std::unique_ptr<Workers> decoders_, workers_;
    std::optional<ImageEmbedder> images_;
    std::optional<TextEmbedder> texts_;
};

} // namespace align
