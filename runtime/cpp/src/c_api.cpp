// The C API: every function checks its arguments, and turns exceptions into a status and the message of the thread.
#include "align_runtime.h"

#include <cstring>
#include <limits>
#include <new>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "handles.hpp"
#include "similarity.hpp"

namespace {

using namespace align;

constexpr std::size_t MAX_MESSAGE = 500; // characters, as in Python

struct LastError {
    char message[4 * MAX_MESSAGE + 1] = ""; // nothing is allocated where memory has run out
    std::int64_t index = -1;
};

thread_local LastError last_error;

void put_message(const char *text) {
    const std::size_t length = std::min(std::strlen(text), sizeof last_error.message - 1);
    std::memcpy(last_error.message, text, length);
    last_error.message[length] = '\0';
}

align_status failed(align_status status, const std::string &message, std::int64_t index = -1) {
    put_message(printable(message, MAX_MESSAGE).c_str());
    last_error.index = index;
    return status;
}

// The status of the exception that is being handled.
align_status status_of_exception() noexcept {
    try {
        try {
            throw;
        } catch (const InputError &error) {
            return failed(error.status, error.message, error.index ? static_cast<std::int64_t>(*error.index) : -1);
        } catch (const Error &error) {
            return failed(error.status, error.message);
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception &error) {
            return failed(ALIGN_ERROR_INTERNAL, std::string("internal error: ") + error.what() + "; please report it");
        }
    } catch (const std::bad_alloc &) {
        put_message(
            "out of memory. Pass fewer inputs at once, load one tower (towers), without streams (streams=1), or "
            "raise the limit of memory");
        last_error.index = -1;
        return ALIGN_ERROR_DEVICE;
    } catch (...) {
        put_message("internal error: an unknown exception; please report it");
        last_error.index = -1;
        return ALIGN_ERROR_INTERNAL;
    }
}

template <typename Work> align_status guarded(const Work &work) noexcept {
    try {
        work();
        return ALIGN_OK;
    } catch (...) {
        return status_of_exception();
    }
}

void check_given(const void *argument, const char *name) {
    if (argument == nullptr)
        throw ConfigurationError(std::string(name) + " is NULL; pass an address");
}

// Checks that `capacity` elements at `out` hold `rows` × `columns` of them.
void check_capacity(const void *out, std::size_t capacity, std::size_t rows, std::size_t columns, const char *unit) {
    if (rows > std::numeric_limits<std::size_t>::max() / columns)
        throw ConfigurationError("the number of inputs is " + std::to_string(rows) + ", more than memory can hold");
    if (capacity < rows * columns)
        throw BufferTooSmallError("the buffer holds " + std::to_string(capacity) + " " + unit + "; " +
                                  std::to_string(rows * columns) + " are needed (" + std::to_string(rows) + " × " +
                                  std::to_string(columns) + ")");
    if (rows * columns > 0)
        check_given(out, "the output buffer");
}

ImageView view(const align_image &image) {
    // Of an image that is not too wide to be refused, the product does not overflow.
    const std::size_t row = image.width * static_cast<std::size_t>(image.channels);
    return {image.data, image.width, image.height, image.stride == 0 ? row : image.stride, image.channels};
}

// Checks what the three functions that embed images have in common, and embeds.
template <typename Item>
align_status embed(align_model *model, const Item *items, std::size_t n, float *out, std::size_t capacity,
                   void (*prepare)(const Model &, const Item &, std::uint8_t *)) noexcept {
    return guarded([&] {
        const Use use(model);
        const ImageEmbedder &images = use->images();
        check_capacity(out, capacity, n, use->facts().embedding_dim, "floats");
        if (n == 0)
            return;
        check_given(items, "the array of images");
        images.embed(
            n, [&](std::size_t index, std::uint8_t *pixels) { prepare(*use, items[index], pixels); }, out);
    });
}

void prepare_image(const Model &model, const align_image &image, std::uint8_t *pixels) {
    model.prepare(view(image), pixels);
}

void prepare_file(const Model &model, const align_bytes &file, std::uint8_t *pixels) {
    if (file.data == nullptr || file.size == 0)
        throw InputError("the image is empty (0 bytes)");
    model.prepare(std::string_view(reinterpret_cast<const char *>(file.data), file.size), pixels);
}

} // namespace

extern "C" {

align_options align_default_options(void) {
    return {sizeof(align_options), "fp32", "cpu", 0, 0, 0, "vision,text", nullptr, nullptr, "drop", 0, nullptr};
}

align_status align_open(const char *bundle, const align_options *options, align_model **out) {
    return guarded([&] {
        check_given(out, "out");
        *out = nullptr;
        check_given(bundle, "bundle");
        *out = add_handle(std::make_shared<OpenModel>(bundle, LoadOptions::from(options)));
    });
}

void align_close(align_model *model) {
    guarded([&] { close_handle(model); });
}

size_t align_embedding_dim(const align_model *model) {
    std::size_t dim = 0;
    guarded([&] { dim = Use(model)->facts().embedding_dim; });
    return dim;
}

int32_t align_max_length(const align_model *model) {
    std::int32_t length = 0;
    guarded([&] { length = Use(model)->facts().max_length; });
    return length;
}

void align_image_size(const align_model *model, size_t *height, size_t *width) {
    std::size_t rows = 0, columns = 0;
    guarded([&] {
        const Use use(model);
        rows = use->preprocessing().pixels_height();
        columns = use->preprocessing().pixels_width();
    });
    if (height != nullptr)
        *height = rows;
    if (width != nullptr)
        *width = columns;
}

align_status align_embed_texts(align_model *model, const char *const *utf8, size_t n, float *out, size_t out_capacity) {
    return guarded([&] {
        const Use use(model);
        const TextEmbedder &texts = use->texts();
        check_capacity(out, out_capacity, n, use->facts().embedding_dim, "floats");
        if (n == 0)
            return;
        check_given(utf8, "the array of texts");
        std::vector<std::string_view> views(n);
        for (std::size_t i = 0; i < n; ++i)
            if (utf8[i] != nullptr)
                views[i] = utf8[i];
        texts.embed(views, out);
    });
}

align_status align_embed_images(align_model *model, const align_image *images, size_t n, float *out,
                                size_t out_capacity) {
    return embed(model, images, n, out, out_capacity, prepare_image);
}

align_status align_embed_encoded(align_model *model, const align_bytes *files, size_t n, float *out,
                                 size_t out_capacity) {
    return embed(model, files, n, out, out_capacity, prepare_file);
}

align_status align_embed_pixels(align_model *model, const uint8_t *pixels, size_t n, float *out, size_t out_capacity) {
    return guarded([&] {
        const Use use(model);
        const ImageEmbedder &images = use->images();
        check_capacity(out, out_capacity, n, use->facts().embedding_dim, "floats");
        if (n == 0)
            return;
        check_given(pixels, "pixels");
        const std::size_t bytes = use->preprocessing().pixels_bytes();
        images.embed(
            n, [&](std::size_t i, std::uint8_t *to) { std::memcpy(to, pixels + i * bytes, bytes); }, out);
    });
}

align_status align_tokenize(align_model *model, const char *utf8, int64_t *ids, size_t capacity, size_t *length) {
    return guarded([&] {
        const Use use(model);
        check_given(utf8, "utf8");
        check_given(length, "length");
        const std::vector<std::int64_t> row = use->texts().encode(utf8);
        *length = row.size();
        check_capacity(ids, capacity, row.size(), 1, "ids");
        std::copy(row.begin(), row.end(), ids);
    });
}

align_status align_preprocess(align_model *model, const align_image *image, uint8_t *pixels, size_t capacity) {
    return guarded([&] {
        const Use use(model);
        check_given(image, "image");
        check_capacity(pixels, capacity, use->preprocessing().pixels_bytes(), 1, "bytes");
        prepare_image(*use, *image, pixels);
    });
}

align_status align_logits(align_model *model, const float *images, size_t n, const float *texts, size_t m, float *out,
                          size_t out_capacity) {
    return guarded([&] {
        const Use use(model);
        if (m > 0)
            check_capacity(out, out_capacity, n, m, "floats");
        if (n > 0)
            check_given(images, "images");
        if (m > 0)
            check_given(texts, "texts");
        logits(images, n, texts, m, use->facts().embedding_dim, use->facts().temperature, out);
    });
}

const char *align_last_error(void) {
    return last_error.message;
}

int64_t align_last_error_index(void) {
    return last_error.index;
}

const char *align_version(void) {
    return ALIGN_VERSION;
}
}
