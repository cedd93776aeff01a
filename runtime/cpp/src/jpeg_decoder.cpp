#include "jpeg_decoder.hpp"

#include <csetjmp>
#include <cstdio> // jpeglib.h needs it
#include <new>
#include <string>

#include <jerror.h>
#include <jpeglib.h>

#include "errors.hpp"

namespace align {

namespace {

// libjpeg reports errors with a jump. No object with a destructor may lie between it and `setjmp`.
struct ErrorManager {
    jpeg_error_mgr manager; // first, so that a pointer to it is one to the whole
    std::jmp_buf target;
    char message[JMSG_LENGTH_MAX];
    bool out_of_memory;
};

[[noreturn]] void jump(j_common_ptr info) {
    auto *errors = reinterpret_cast<ErrorManager *>(info->err);
    errors->out_of_memory = info->err->msg_code == JERR_OUT_OF_MEMORY;
    info->err->format_message(info, errors->message);
    std::longjmp(errors->target, 1);
}

void ignore_message(j_common_ptr) {}
void ignore(j_decompress_ptr) {}
boolean suspend(j_decompress_ptr) {
    return FALSE;
} // all data are there from the start

void skip(j_decompress_ptr info, long count) {
    jpeg_source_mgr *source = info->src;
    const std::size_t bytes = count > 0 ? static_cast<std::size_t>(count) : 0;
    const std::size_t taken = bytes < source->bytes_in_buffer ? bytes : source->bytes_in_buffer;
    source->next_input_byte += taken;
    source->bytes_in_buffer -= taken;
}

constexpr const char *TRUNCATED = "the file is truncated";

class Decoder {
public:
    explicit Decoder(std::string_view data) {
        info_.err = jpeg_std_error(&errors_.manager);
        errors_.manager.error_exit = jump;
        errors_.manager.output_message = ignore_message;
        source_.next_input_byte = reinterpret_cast<const JOCTET *>(data.data());
        source_.bytes_in_buffer = data.size();
        source_.init_source = source_.term_source = ignore;
        source_.fill_input_buffer = suspend;
        source_.skip_input_data = skip;
        source_.resync_to_restart = jpeg_resync_to_restart;
    }
    ~Decoder() { jpeg_destroy_decompress(&info_); }
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;

    // Each returns what is wrong, nullptr for nothing.
    const char *start() {
        if (setjmp(errors_.target) != 0)
            return errors_.message;
        jpeg_create_decompress(&info_);
        info_.src = &source_;
        if (jpeg_read_header(&info_, TRUE) != JPEG_HEADER_OK)
            return TRUNCATED;
        if (info_.num_components != 1 && info_.num_components != 3 && info_.num_components != 4)
            return "it has neither 1, 3 nor 4 components";
        info_.out_color_space = info_.num_components == 1   ? JCS_GRAYSCALE
                                : info_.num_components == 3 ? JCS_RGB
                                                            : JCS_CMYK;
        return jpeg_start_decompress(&info_) != FALSE ? nullptr : TRUNCATED;
    }

    const char *read(std::uint8_t *row) {
        if (setjmp(errors_.target) != 0)
            return errors_.message;
        JSAMPROW rows[1] = {row};
        return jpeg_read_scanlines(&info_, rows, 1) == 1 ? nullptr : TRUNCATED;
    }

    const char *finish() {
        if (setjmp(errors_.target) != 0)
            return errors_.message;
        jpeg_finish_decompress(&info_); // without the file's end it waits for more, which does not matter
        return nullptr;
    }

    const jpeg_decompress_struct &info() const { return info_; }
    bool out_of_memory() const { return errors_.out_of_memory; }

private:
    ErrorManager errors_{};
    jpeg_source_mgr source_{};
    jpeg_decompress_struct info_{};
};

void check(const Decoder &decoder, const char *problem) {
    if (problem != nullptr && decoder.out_of_memory())
        throw std::bad_alloc();
    if (problem != nullptr)
        throw InputError(std::string("the image cannot be decoded as JPEG: ") + problem);
}

// Adobe's CMYK, of which 255 is no ink, to RGB as Pillow converts it.
void convert_cmyk(const std::uint8_t *cmyk, std::size_t count, std::uint8_t *rgb) {
    for (std::size_t i = 0; i < count; ++i, cmyk += 4, rgb += 3)
        for (std::size_t c = 0; c < 3; ++c) {
            const unsigned light = cmyk[3], product = (255U - cmyk[c]) * light + 128;
            rgb[c] = static_cast<std::uint8_t>(light - ((product + (product >> 8)) >> 8));
        }
}

} // namespace

DecodedImage decode_jpeg(std::string_view data, std::size_t width, std::size_t height) {
    Decoder decoder(data);
    check(decoder, decoder.start());
    if (decoder.info().output_width != width || decoder.info().output_height != height)
        throw InputError("the image cannot be decoded as JPEG: it has two headers");
    const bool is_cmyk = decoder.info().out_color_space == JCS_CMYK;
    DecodedImage image{width, height, decoder.info().out_color_space == JCS_GRAYSCALE ? 1 : 3, nullptr};
    image.data.reset(new std::uint8_t[height * image.stride()]);
    const std::unique_ptr<std::uint8_t[]> inks(is_cmyk ? new std::uint8_t[4 * width] : nullptr);
    for (std::size_t y = 0; y < height; ++y) {
        check(decoder, decoder.read(is_cmyk ? inks.get() : image.row(y)));
        if (is_cmyk)
            convert_cmyk(inks.get(), width, image.row(y));
    }
    check(decoder, decoder.finish());
    return image;
}

} // namespace align
