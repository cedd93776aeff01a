// The tokenizer, the preprocessing and the decoders as C functions, so that pytest can compare them with Python in
// bulk. A call returns a status; the message of an error is in `message`, of MESSAGE_BYTES.
#include <cstring>
#include <new>

#include "encoded_images.hpp"
#include "errors.hpp"
#include "images.hpp"
#include "resample.hpp"
#include "tokenizer.hpp"

#define SHIM extern "C" __attribute__((visibility("default")))

namespace {

constexpr std::size_t MESSAGE_BYTES = 1024;

template <class Work> int guarded(char *message, Work work) {
    try {
        work();
        return ALIGN_OK;
    } catch (const align::Error &error) {
        std::strncpy(message, error.message.c_str(), MESSAGE_BYTES - 1);
        return error.status;
    } catch (const std::bad_alloc &) {
        return ALIGN_ERROR_DEVICE;
    }
}

align::Background colour(const std::uint8_t *rgb) {
    return rgb == nullptr ? align::Background() : align::Colour{rgb[0], rgb[1], rgb[2]};
}

} // namespace

SHIM int shim_tokenizer_open(const char *json, std::size_t bytes, std::int32_t max_length, std::int64_t pad_id,
                             align::Tokenizer **out, char *message) {
    return guarded(message, [&] {
        *out = new align::Tokenizer(align::Tokenizer::from_json({json, bytes}, max_length, pad_id));
    });
}

SHIM void shim_tokenizer_close(align::Tokenizer *tokenizer) {
    delete tokenizer;
}

// Encodes `count` texts, whose ends in `texts` are in `ends`; `ids` has room for max_length of each.
SHIM int shim_tokenizer_encode(const align::Tokenizer *tokenizer, const char *texts, const std::uint64_t *ends,
                               std::size_t count, std::int64_t *ids, std::uint64_t *lengths, char *message) {
    return guarded(message, [&] {
        std::uint64_t start = 0;
        for (std::size_t i = 0; i < count; start = ends[i++]) {
            const std::vector<std::int64_t> row = tokenizer->encode({texts + start, ends[i] - start});
            lengths[i] = row.size();
            ids = std::copy(row.begin(), row.end(), ids);
        }
    });
}

SHIM int shim_preprocessing_open(const char *json, std::size_t bytes, align::Preprocessing **out, char *message) {
    return guarded(message, [&] {
        *out = new align::Preprocessing(
            align::Preprocessing::from_json(align::parse_object({json, bytes}, "preprocessing", bytes)));
    });
}

SHIM void shim_preprocessing_close(align::Preprocessing *config) {
    delete config;
}

// Decodes to `*out`, to be closed; `background` is nullptr or three bytes.
SHIM int shim_decode(const char *data, std::size_t bytes, const std::uint8_t *background, align::DecodedImage **out,
                     char *message) {
    return guarded(message, [&] {
        *out = new align::DecodedImage(align::decode_image({data, bytes}, {}, colour(background)));
    });
}

// Writes width, height and channels; returns the pixels.
SHIM const std::uint8_t *shim_image(const align::DecodedImage *image, std::uint64_t *shape) {
    shape[0] = image->width;
    shape[1] = image->height;
    shape[2] = static_cast<std::uint64_t>(image->channels);
    return image->data.get();
}

SHIM void shim_image_close(align::DecodedImage *image) {
    delete image;
}

SHIM int shim_preprocess(const align::Preprocessing *config, const std::uint8_t *data, std::size_t width,
                         std::size_t height, std::size_t stride, int channels, const std::uint8_t *background,
                         std::uint8_t *pixels, char *message) {
    return guarded(message, [&] {
        align::preprocess(*config, {data, width, height, stride, channels}, pixels, colour(background));
    });
}

// The whole image, resized; `plain` is 1 for the passes without SIMD.
SHIM int shim_resample(const std::uint8_t *data, std::size_t width, std::size_t height, int channels, int filter,
                       std::size_t new_width, std::size_t new_height, int plain, std::uint8_t *pixels, char *message) {
    return guarded(message, [&] {
        const align::ImageView image{data, width, height, width * static_cast<std::size_t>(channels), channels};
        align::resample(image, static_cast<align::Filter>(filter), {new_height, new_width},
                        {0, 0, new_width, new_height}, pixels, 3 * new_width,
                        plain != 0 ? align::PLAIN_PASSES : align::best_passes());
    });
}
