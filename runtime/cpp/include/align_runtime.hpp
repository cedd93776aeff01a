// align_runtime for C++17: the C API with RAII, exceptions and vectors. Header-only; link the same library.
//
//     #include <align_runtime.hpp>
//     #include <iostream>
//
//     int main() {
//         try {
//             const align_runtime::Model model("build/align-base");
//             const auto texts = model.embed_texts({"a photo of a cat", "a photo of a dog"});
//             std::cout << texts.rows() << " rows of " << texts.dim() << " floats, " << texts[0][0] << " ...\n";
//         } catch (const align_runtime::Error &error) {
//             std::cerr << error.what() << "\n";
//             return 1;
//         }
//     }
//
// Threads, memory and forks: see align_runtime.h. A Model can be moved, not copied; any number of threads may call one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "align_runtime.h"

namespace align_runtime {

// Base of all errors. `index` is the position of the input that it is about, -1 if it is about none.
class Error : public std::runtime_error {
public:
    Error(align_status status, const char *message, std::int64_t index)
        : std::runtime_error(message), status_(status), index_(index) {}

    align_status status() const noexcept { return status_; }
    std::int64_t index() const noexcept { return index_; }

private:
    align_status status_;
    std::int64_t index_;
};

// The classes of align_runtime.errors that the runtime raises; align_runtime.h says when.
struct ConfigurationError : Error {
    using Error::Error;
};
struct InputError : Error {
    using Error::Error;
};
struct BundleError : Error {
    using Error::Error;
};
struct BackendUnavailableError : Error {
    using Error::Error;
};
struct DeviceError : Error {
    using Error::Error;
};

namespace detail {

// Throws the error of the calling thread's last call unless `status` is ALIGN_OK.
inline void check(align_status status) {
    const char *message = align_last_error();
    const std::int64_t index = align_last_error_index();
    switch (status) {
    case ALIGN_OK:
        return;
    case ALIGN_ERROR_CONFIGURATION:
        throw ConfigurationError(status, message, index);
    case ALIGN_ERROR_INPUT:
        throw InputError(status, message, index);
    case ALIGN_ERROR_BUNDLE:
        throw BundleError(status, message, index);
    case ALIGN_ERROR_BACKEND_UNAVAILABLE:
        throw BackendUnavailableError(status, message, index);
    case ALIGN_ERROR_DEVICE:
        throw DeviceError(status, message, index);
    default:
        throw Error(status, message, index);
    }
}

} // namespace detail

// How a bundle is opened; align_options in align_runtime.h explains each field.
struct Options {
    std::string precision = "fp32", device = "cpu", towers = "vision,text";
    std::int32_t threads = 0, streams = 0;
    bool check_hashes = false;
    std::string onnxruntime_library, manifest_sha256, alpha = "drop";
    std::size_t max_pixels = 0;
    std::string provider_library;
};

// Floats of others in a row, as std::span<const float> of C++20.
class View {
public:
    View(const float *data, std::size_t size) : data_(data), size_(size) {}

    const float *data() const { return data_; }
    std::size_t size() const { return size_; }
    const float *begin() const { return data_; }
    const float *end() const { return data_ + size_; }
    float operator[](std::size_t i) const { return data_[i]; }

private:
    const float *data_;
    std::size_t size_;
};

// Rows of floats, one after another: embeddings of unit length, or logits.
class Matrix {
public:
    Matrix(std::size_t rows, std::size_t dim) : rows_(rows), dim_(dim), values_(rows * dim) {}

    std::size_t rows() const { return rows_; }
    std::size_t dim() const { return dim_; }
    View operator[](std::size_t row) const { return {values_.data() + row * dim_, dim_}; }
    const std::vector<float> &values() const { return values_; }
    float *data() { return values_.data(); }
    const float *data() const { return values_.data(); }

private:
    std::size_t rows_, dim_;
    std::vector<float> values_;
};

// A bundle that is open until the end of the object's life. Every method throws Error.
class Model {
public:
    explicit Model(const std::string &bundle, const Options &options = {}) {
        align_options given = align_default_options();
        given.precision = options.precision.c_str();
        given.device = options.device.c_str();
        given.towers = options.towers.c_str();
        given.threads = options.threads;
        given.streams = options.streams;
        given.check_hashes = options.check_hashes ? 1 : 0;
        given.onnxruntime_library = options.onnxruntime_library.c_str();
        given.manifest_sha256 = options.manifest_sha256.c_str();
        given.alpha = options.alpha.c_str();
        given.max_pixels = options.max_pixels;
        given.provider_library = options.provider_library.c_str();
        detail::check(align_open(bundle.c_str(), &given, &handle_));
    }
    ~Model() { align_close(handle_); }
    Model(Model &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Model &operator=(Model &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }

    std::size_t embedding_dim() const { return align_embedding_dim(handle_); }
    std::int32_t max_length() const { return align_max_length(handle_); }

    // (height, width) of preprocessed images.
    std::pair<std::size_t, std::size_t> image_size() const {
        std::pair<std::size_t, std::size_t> size;
        align_image_size(handle_, &size.first, &size.second);
        return size;
    }

    Matrix embed_texts(const std::vector<std::string> &utf8) const {
        std::vector<const char *> texts;
        for (std::size_t i = 0; i < utf8.size(); ++i) {
            if (utf8[i].find('\0') != std::string::npos)
                throw InputError(ALIGN_ERROR_INPUT, "a text has a NUL character; remove it",
                                 static_cast<std::int64_t>(i));
            texts.push_back(utf8[i].c_str());
        }
        return embed(align_embed_texts, texts.data(), texts.size());
    }

    Matrix embed_images(const std::vector<align_image> &images) const {
        return embed(align_embed_images, images.data(), images.size());
    }

    // JPEG and PNG files in memory.
    Matrix embed_encoded(const std::vector<align_bytes> &files) const {
        return embed(align_embed_encoded, files.data(), files.size());
    }

    // Images that `preprocess` has prepared, one after another.
    Matrix embed_pixels(const std::vector<std::uint8_t> &pixels) const {
        const auto [height, width] = image_size();
        const std::size_t bytes = height * width * 3;
        if (bytes == 0 || pixels.size() % bytes != 0)
            throw InputError(ALIGN_ERROR_INPUT, "pixels are no whole number of images; prepare them with preprocess",
                             -1);
        return embed(align_embed_pixels, pixels.data(), pixels.size() / bytes);
    }

    std::vector<std::int64_t> tokenize(const std::string &utf8) const {
        std::vector<std::int64_t> ids(static_cast<std::size_t>(max_length()));
        std::size_t length = 0;
        detail::check(align_tokenize(handle_, utf8.c_str(), ids.data(), ids.size(), &length));
        ids.resize(length);
        return ids;
    }

    // uint8 (height, width, 3), RGB.
    std::vector<std::uint8_t> preprocess(const align_image &image) const {
        const auto [height, width] = image_size();
        std::vector<std::uint8_t> pixels(height * width * 3);
        detail::check(align_preprocess(handle_, &image, pixels.data(), pixels.size()));
        return pixels;
    }

    // Logits (images, texts): cosines divided by the temperature of the model.
    Matrix logits(const Matrix &images, const Matrix &texts) const {
        const std::size_t dim = embedding_dim();
        if ((images.rows() > 0 && images.dim() != dim) || (texts.rows() > 0 && texts.dim() != dim))
            throw InputError(ALIGN_ERROR_INPUT, "rows have another length than embeddings of this model", -1);
        Matrix result(images.rows(), texts.rows());
        detail::check(align_logits(handle_, images.data(), images.rows(), texts.data(), texts.rows(), result.data(),
                                   result.values().size()));
        return result;
    }

private:
    template <typename Item>
    Matrix embed(align_status (*function)(align_model *, const Item *, std::size_t, float *, std::size_t),
                 const Item *items, std::size_t count) const {
        Matrix rows(count, embedding_dim());
        detail::check(function(handle_, items, count, rows.data(), rows.values().size()));
        return rows;
    }

    align_model *handle_ = nullptr;
};

} // namespace align_runtime
