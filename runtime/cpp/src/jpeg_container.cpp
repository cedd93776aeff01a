#include "jpeg_container.hpp"

#include <algorithm>
#include <optional>

#include "errors.hpp"

namespace align {

namespace {

constexpr std::size_t MAX_SCANS = 64; // libjpeg writes 10 for a colour image and 18 for CMYK
constexpr std::size_t MAX_SEGMENTS = 1 << 14;
constexpr std::size_t MAX_FILL = 4096; // bytes of FF in a row; libjpeg starts over at the first of them
constexpr int TEM = 0x01, SOI = 0xd8, EOI = 0xd9, SOS = 0xda, COM = 0xfe;
constexpr int APP0 = 0xe0, APP1 = 0xe1, APP14 = 0xee, APP15 = 0xef;
constexpr std::string_view EXIF("Exif\0\0", 6), XMP("http://ns.adobe.com/xap/1.0/\0", 29);

InputError too_many(const char *parts, std::size_t limit) {
    return InputError(std::string("the image has too many ") + parts + "; expected at most " + std::to_string(limit) +
                      "; save it again with another program");
}

int byte(std::string_view data, std::size_t at) {
    return static_cast<unsigned char>(data[at]);
}

std::size_t word(std::string_view data, std::size_t at) {
    return static_cast<std::size_t>(byte(data, at) << 8 | byte(data, at + 1));
}

bool begins(std::string_view text, std::string_view with) {
    return text.substr(0, with.size()) == with;
}

bool is_frame(int marker) {
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// Whether libjpeg looks at the segment: of the application's own, at two that tell the colour space.
bool matters(int marker, std::string_view content) {
    if (marker == APP0)
        return begins(content, std::string_view("JFIF\0", 5)) && content.size() >= 12;
    if (marker == APP14)
        return begins(content, "Adobe") && content.size() >= 12;
    return !((marker > APP0 && marker <= APP15) || marker == COM);
}

struct Segment {
    int marker;
    std::size_t start, stop; // a scan ends with its header, before its coded data
};

class Segments {
public:
    explicit Segments(std::string_view data) : data_(data) {}

    std::optional<Segment> next() {
        while (position_ < data_.size()) {
            const std::size_t start = data_.find('\xff', position_);
            if (start == data_.npos || start + 1 >= data_.size())
                break;
            const int marker = byte(data_, start + 1);
            // 00 is an escaped FF, D0–D7 are restart marks, and FF may begin a marker itself
            if (marker == 0 || marker == 0xff || (marker >= 0xd0 && marker <= 0xd7)) {
                position_ = start + 1;
                continue;
            }
            position_ = start + 2;
            if (marker == SOI || marker == TEM)
                continue;
            if (++count_ > MAX_SEGMENTS)
                throw too_many("segments", MAX_SEGMENTS);
            if (marker != EOI) {
                const bool has_length = position_ + 2 <= data_.size();
                const std::size_t rest =
                    position_ < data_.size() ? static_cast<std::size_t>(byte(data_, position_)) : 0;
                position_ += std::max<std::size_t>(2, has_length ? word(data_, position_) : rest);
            }
            return Segment{marker, start, position_};
        }
        return std::nullopt;
    }

private:
    std::string_view data_;
    std::size_t position_ = 2, count_ = 0;
};

} // namespace

JpegImage strip_jpeg(std::string_view file) {
    JpegImage image{"\xff\xd8", 0, 0, {}, {}};
    bool has_size = false;
    std::size_t scans = 0, first_scan = file.size(), end = file.size();
    Segments segments(file);
    while (const auto segment = segments.next()) {
        const auto [marker, start, stop] = *segment;
        const std::string_view content =
            start + 4 < stop ? file.substr(std::min(start + 4, file.size()), stop - start - 4) : std::string_view();
        if (marker == EOI) {
            end = stop;
            break;
        }
        if (marker == SOS) {
            first_scan = std::min(first_scan, start);
            if (++scans > MAX_SCANS)
                throw too_many("scans", MAX_SCANS);
        } else if (is_frame(marker) && !has_size && content.size() >= 5) {
            has_size = true;
            image.width = word(content, 3);
            image.height = word(content, 1);
        } else if (scans > 0) {
            continue;
        } else if (marker == APP1 && begins(content, EXIF)) {
            image.exif += content.substr(EXIF.size());
        } else if (marker == APP1 && begins(content, XMP)) {
            image.xmp = content;
        }
        if (scans == 0 && matters(marker, content))
            image.data += file.substr(start, stop - start);
    }
    if (!has_size)
        throw InputError("the image cannot be decoded as JPEG: it has no complete header");
    if (first_scan < end)
        image.data += file.substr(first_scan, end - first_scan);
    if (image.data.find(std::string(MAX_FILL, '\xff')) != std::string::npos)
        throw too_many("fill bytes", MAX_FILL);
    return image;
}

} // namespace align
