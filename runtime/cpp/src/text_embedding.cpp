#include "text_embedding.hpp"

#include <algorithm>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "scheduling.hpp"

namespace align {

namespace {

constexpr std::size_t TEXT_BATCH = 32;
constexpr std::size_t TEXT_WINDOW = 4096;          // texts sorted together
constexpr std::size_t TEXT_WINDOW_BYTES = 1 << 22; // of a window, and one text more
constexpr std::size_t MIN_TEXTS_PER_STREAM = 2;    // one per stream has a lower latency with all threads
constexpr std::size_t TEXTS_PER_TASK = 32;         // tokenized by one thread in a row
constexpr std::size_t MAX_TEXT_CHARACTERS = 1000000;

} // namespace

std::vector<std::int64_t> TextEmbedder::encode(std::string_view text) const {
    if (text.size() > MAX_TEXT_CHARACTERS)
        if (const std::size_t count = character_count(text); count > MAX_TEXT_CHARACTERS)
            throw InputError("the text has " + std::to_string(count) + " characters; expected at most " +
                             std::to_string(MAX_TEXT_CHARACTERS));
    return tokenizer_.encode(text);
}

void TextEmbedder::embed(const std::vector<std::string_view> &texts, float *out) const {
    for (std::size_t start = 0; start < texts.size();) {
        std::size_t end = start, bytes = 0;
        while (end < texts.size() && end - start < TEXT_WINDOW && bytes < TEXT_WINDOW_BYTES)
            bytes += texts[end++].size();
        embed_rows(encode_all(&texts[start], end - start, start), out + start * tower_.dim());
        start = end;
    }
}

TextEmbedder::Rows TextEmbedder::encode_all(const std::string_view *texts, std::size_t count,
                                            std::size_t first_index) const {
    Rows rows(count);
    const auto encode_some = [&](std::size_t task) {
        const std::size_t end = std::min((task + 1) * TEXTS_PER_TASK, count);
        for (std::size_t i = task * TEXTS_PER_TASK; i < end; ++i)
            try {
                if (texts[i].data() == nullptr)
                    throw InputError("the text is NULL; pass a string that ends with NUL");
                rows[i] = encode(texts[i]);
            } catch (const InputError &error) {
                throw error.at(first_index + i);
            }
    };
    if (count <= TEXTS_PER_TASK)
        encode_some(0);
    else
        tokenizers_.run((count + TEXTS_PER_TASK - 1) / TEXTS_PER_TASK, encode_some);
    return rows;
}

void TextEmbedder::embed_rows(const Rows &rows, float *out) const {
    std::vector<std::size_t> lengths;
    for (const std::vector<std::int64_t> &row : rows)
        lengths.push_back(row.size());
    const std::size_t streams = tower_.streams();
    const bool streamed = streams > 1 && rows.size() >= MIN_TEXTS_PER_STREAM * streams;
    const Batches batches =
        streamed ? token_batches(lengths, TEXT_BATCH, streams) : length_batches(lengths, tower_.batch_size(TEXT_BATCH));
    const auto run_one = [&](std::size_t index) { run(streamed, rows, batches[index], out); };
    if (streamed || (tower_.in_flight() > 1 && batches.size() > 1))
        workers_.run(batches.size(), run_one);
    else
        for (std::size_t i = 0; i < batches.size(); ++i)
            run_one(i);
}

void TextEmbedder::run(bool stream, const Rows &rows, const std::vector<std::size_t> &batch, float *out) const {
    std::size_t width = 0;
    for (const std::size_t index : batch)
        width = std::max(width, rows[index].size());
    std::vector<std::int64_t> ids(batch.size() * width, pad_id_), mask(ids.size(), 0);
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::vector<std::int64_t> &row = rows[batch[i]];
        const auto start = static_cast<std::ptrdiff_t>(i * width);
        std::copy(row.begin(), row.end(), ids.begin() + start);
        std::fill_n(mask.begin() + start, row.size(), 1);
    }
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(batch.size()), static_cast<std::int64_t>(width)};
    const std::vector<Input> inputs{{"input_ids", ElementType::int64, shape, ids.data()},
                                    {"attention_mask", ElementType::int64, shape, mask.data()}};
    const std::size_t dim = tower_.dim();
    std::vector<float> embeds(batch.size() * dim);
    stream ? tower_.run_stream(inputs, embeds.data()) : tower_.run(inputs, embeds.data());
    for (std::size_t i = 0; i < batch.size(); ++i)
        std::copy_n(&embeds[i * dim], dim, out + batch[i] * dim);
}

} // namespace align
