// JPEG: the tables and scans of the first image; see align_runtime.containers.jpeg.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align {

// A JPEG file with nothing in it that its pixels do not need, and what was found beside them.
struct JpegImage {
    std::string data;
    std::size_t width, height;
    std::string exif;     // joined; empty for none
    std::string_view xmp; // of the file; empty for none
};

// The first image of the JPEG `file`. Throws InputError if it has no header, or too many scans or segments.
JpegImage strip_jpeg(std::string_view file);

} // namespace align
