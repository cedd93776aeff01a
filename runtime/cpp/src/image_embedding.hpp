// Images to embeddings: prepared in a pool of threads while the graph computes, in the order of the input.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "preprocessing.hpp"
#include "tower.hpp"
#include "workers.hpp"

namespace align {

// Writes the pixels, uint8 (height, width, 3), of the image with this index. Any thread may call it.
using PrepareImage = std::function<void(std::size_t index, std::uint8_t *pixels)>;

// The vision tower, which any number of threads may share.
class ImageEmbedder {
public:
    ImageEmbedder(Tower tower, const Preprocessing &preprocessing, Workers &decoders, Workers &workers)
        : tower_(std::move(tower)), preprocessing_(preprocessing), decoders_(decoders), workers_(workers) {}

    // Writes the embeddings of `count` images to `out`, float32 (count, dim).
    //
    // With streams, each thread prepares an image and computes its embedding: batches do not make a single-threaded run
    // of an EfficientNet faster. Without streams, or with too few images for all of them, the pool prepares images and
    // the graph runs batches with all threads. Throws InputError with the index of an image that cannot be used, and as
    // Tower::run.
    void embed(std::size_t count, const PrepareImage &prepare, float *out) const;

private:
    void embed_in_streams(std::size_t count, const PrepareImage &prepare, float *out) const;
    void embed_in_batches(std::size_t count, const PrepareImage &prepare, float *out) const;
    void run(bool stream, const std::vector<std::uint8_t> &pixels, std::size_t rows, float *out) const;

    Tower tower_;
    const Preprocessing &preprocessing_;
    Workers &decoders_, &workers_;
};

} // namespace align
