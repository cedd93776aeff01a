#include "image_embedding.hpp"

#include <algorithm>
#include <deque>
#include <memory>

#include "errors.hpp"

namespace align {

namespace {

constexpr std::size_t IMAGE_BATCH = 8;

// Images that are prepared together and run in one batch.
struct Batch {
    std::size_t first, count;
    std::vector<std::uint8_t> pixels;
    std::function<void(std::size_t)> work; // preparing one of them, then running all
    std::unique_ptr<Pending> pending;      // last: it waits for the work before the pixels are freed
};

} // namespace

void ImageEmbedder::embed(std::size_t count, const PrepareImage &prepare, float *out) const {
    const PrepareImage named = [&prepare](std::size_t index, std::uint8_t *pixels) {
        try {
            prepare(index, pixels);
        } catch (const InputError &error) {
            throw error.at(index);
        } catch (const std::bad_alloc &) {
            throw InputError("the image needs more memory than there is; scale it down", index);
        }
    };
    const std::size_t streams = tower_.streams();
    if (count > 1 && streams > 1 && streams <= count)
        embed_in_streams(count, named, out);
    else
        embed_in_batches(count, named, out);
}

void ImageEmbedder::embed_in_streams(std::size_t count, const PrepareImage &prepare, float *out) const {
    workers_.run(count, [&](std::size_t index) {
        std::vector<std::uint8_t> pixels(preprocessing_.pixels_bytes());
        prepare(index, pixels.data());
        run(true, pixels, 1, out + index * tower_.dim());
    });
}

void ImageEmbedder::embed_in_batches(std::size_t count, const PrepareImage &prepare, float *out) const {
    const std::size_t size = tower_.batch_size(IMAGE_BATCH), in_flight = static_cast<std::size_t>(tower_.in_flight());
    const std::size_t bytes = preprocessing_.pixels_bytes();
    const auto prepared = [&](std::size_t first) {
        auto batch = std::make_unique<Batch>();
        batch->first = first;
        batch->count = std::min(size, count - first);
        batch->pixels.resize(batch->count * bytes);
        Batch &one = *batch;
        batch->work = [&one, &prepare, bytes](std::size_t i) { prepare(one.first + i, &one.pixels[i * bytes]); };
        if (count > 1) // there is nothing to overlap with for one
            batch->pending = decoders_.start(one.count, one.work);
        return batch;
    };
    std::deque<std::unique_ptr<Batch>> running;
    std::unique_ptr<Batch> next = prepared(0);
    while (next) {
        std::unique_ptr<Batch> batch = std::move(next);
        if (batch->pending)
            batch->pending->finish();
        else
            batch->work(0);
        if (batch->first + size < count)
            next = prepared(batch->first + size);
        float *rows = out + batch->first * tower_.dim();
        if (in_flight == 1) {
            run(false, batch->pixels, batch->count, rows);
            continue;
        }
        Batch &one = *batch;
        batch->pending.reset();
        batch->work = [this, &one, rows](std::size_t) { run(false, one.pixels, one.count, rows); };
        batch->pending = workers_.start(1, batch->work);
        running.push_back(std::move(batch));
        if (running.size() > in_flight) {
            running.front()->pending->finish();
            running.pop_front();
        }
    }
    for (; !running.empty(); running.pop_front())
        running.front()->pending->finish();
}

void ImageEmbedder::run(bool stream, const std::vector<std::uint8_t> &pixels, std::size_t rows, float *out) const {
    const auto count = static_cast<std::int64_t>(rows),
               height = static_cast<std::int64_t>(preprocessing_.pixels_height()),
               width = static_cast<std::int64_t>(preprocessing_.pixels_width());
    std::vector<float> values;
    std::vector<Input> inputs;
    if (tower_.graph().float_pixels) {
        values = preprocessing_.normalize(pixels, rows);
        inputs = {{"pixel_values", ElementType::float32, {count, 3, height, width}, values.data()}};
    } else {
        inputs = {{"pixels", ElementType::uint8, {count, height, width, 3}, pixels.data()}};
    }
    stream ? tower_.run_stream(inputs, out) : tower_.run(inputs, out);
}

} // namespace align
