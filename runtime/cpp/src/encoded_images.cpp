#include "encoded_images.hpp"

#include <string>
#include <utility>

#include "errors.hpp"
#include "jpeg_container.hpp"
#include "jpeg_decoder.hpp"
#include "orientation.hpp"
#include "png_container.hpp"
#include "png_decoder.hpp"

namespace align {

namespace {

constexpr std::string_view PNG_SIGNATURE = "\x89PNG\r\n\x1a\n", JPEG_SIGNATURE = "\xff\xd8\xff";

template <class Text> std::optional<std::string_view> unless_empty(const Text &text) {
    return text.empty() ? std::nullopt : std::optional<std::string_view>(text);
}

DecodedImage decode_as_jpeg(std::string_view bytes, const Limits &limits) {
    const JpegImage jpeg = strip_jpeg(bytes);
    check_size(jpeg.width, jpeg.height, limits);
    const int orientation = orientation_of({unless_empty(jpeg.exif), unless_empty(jpeg.xmp)});
    return upright(decode_jpeg(jpeg.data, jpeg.width, jpeg.height), orientation);
}

DecodedImage decode_as_png(std::string_view bytes, const Limits &limits, const Background &background) {
    const PngImage png = read_png(bytes);
    check_size(png.width, png.height, limits);
    return upright(decode_png(png, background), orientation_of({png.exif, png.xmp}));
}

} // namespace

DecodedImage decode_image(std::string_view bytes, const Limits &limits, const Background &background) {
    if (bytes.size() > limits.max_file_bytes())
        throw InputError("the image has " + std::to_string(bytes.size()) + " bytes; expected at most " +
                         std::to_string(limits.max_file_bytes()));
    if (bytes.substr(0, JPEG_SIGNATURE.size()) == JPEG_SIGNATURE)
        return decode_as_jpeg(bytes, limits);
    if (bytes.substr(0, PNG_SIGNATURE.size()) == PNG_SIGNATURE)
        return decode_as_png(bytes, limits, background);
    throw InputError("the image is neither JPEG nor PNG; convert it, or decode it and pass its pixels");
}

} // namespace align
