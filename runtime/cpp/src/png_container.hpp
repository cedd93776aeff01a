// PNG: header, palette, transparency and compressed pixels; see align_runtime.containers.png.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace align {

// What a PNG file says about its default image, and where in the file the pixels are.
struct PngImage {
    std::uint32_t width, height;
    int bits, colour; // of a sample; grey 0, RGB 2, palette 3, grey and alpha 4, RGBA 6
    bool interlaced;
    std::optional<std::string_view> palette, transparency;
    std::vector<std::string_view> pixels; // parts of one zlib stream
    std::unique_ptr<std::string> cut_off; // what the last of them is, if the file ends within it
    std::optional<std::string> exif, xmp;
};

// The default image of the PNG `file`. Throws InputError if it has no header or a wrong one, or too many chunks.
PngImage read_png(std::string_view file);

} // namespace align
