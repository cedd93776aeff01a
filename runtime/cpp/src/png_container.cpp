#include "png_container.hpp"

#include <algorithm>
#include <map>

#include <zlib.h>

#include "errors.hpp"

namespace align {

namespace {

constexpr std::size_t MAX_CHUNKS = 1 << 18; // each costs some microseconds
constexpr std::size_t SIGNATURE_BYTES = 8, HEADER_BYTES = 13;
constexpr std::size_t MAX_TEXT = 1 << 20; // bytes, decompressed, of a text that may hold an orientation
constexpr std::string_view RAW_EXIF = "Raw profile type exif", XMP = "XML:com.adobe.xmp";
constexpr std::string_view END("\0\0\0\0IEND\xae\x42\x60\x82", 12); // what Pillow finds behind a chunk that is cut off

[[noreturn]] void refuse(const std::string &reason) {
    throw InputError("the image cannot be decoded as PNG: " + reason);
}

std::uint32_t number(std::string_view data, std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
        value = value << 8 | static_cast<unsigned char>(data[at + i]);
    return value;
}

struct Chunk {
    std::string_view kind, content;
    std::string_view checked; // kind and content, with their checksum behind them; empty for a chunk that is cut off
    std::size_t missing;      // bytes of its content that the file lacks

    bool has_right_checksum() const {
        if (checked.empty())
            return false;
        const std::size_t size = checked.size() - 4;
        return crc32(0, reinterpret_cast<const Bytef *>(checked.data()), static_cast<uInt>(size)) ==
               number(checked, size);
    }
};

class Chunks {
public:
    explicit Chunks(std::string_view file) : file_(file) {}

    // False at the end.
    bool next(Chunk &chunk) {
        if (position_ > file_.size() || file_.size() - position_ < 8)
            return false;
        const std::size_t size = number(file_, position_), start = position_ + 8, room = file_.size() - start;
        const std::string_view kind = file_.substr(position_ + 4, 4);
        if (kind == "IEND")
            return false;
        if (++count_ > MAX_CHUNKS)
            throw InputError("the image has too many chunks; expected at most " + std::to_string(MAX_CHUNKS) +
                             "; save it again with another program");
        const bool complete = size + 4 <= room;
        // Of a chunk that is cut off the last four bytes pass for its checksum.
        const std::size_t held = complete || kind == "IDAT" ? size : room - std::min<std::size_t>(room, 4);
        chunk = {kind, file_.substr(start, held), complete ? file_.substr(start - 4, size + 8) : std::string_view(),
                 size > room ? size - room : 0};
        position_ = start + size + 4;
        return true;
    }

private:
    std::string_view file_;
    std::size_t position_ = SIGNATURE_BYTES, count_ = 0;
};

std::string inflated(std::string_view data) {
    std::string text(MAX_TEXT, '\0');
    z_stream stream{};
    if (inflateInit(&stream) != Z_OK)
        return {};
    stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(data.data()));
    stream.avail_in = static_cast<uInt>(data.size());
    stream.next_out = reinterpret_cast<Bytef *>(text.data());
    stream.avail_out = static_cast<uInt>(text.size());
    const int result = inflate(&stream, Z_SYNC_FLUSH);
    text.resize(text.size() - stream.avail_out);
    inflateEnd(&stream);
    return result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR ? text : std::string();
}

// What stands behind the next NUL.
std::string_view after_nul(std::string_view text) {
    const std::size_t at = text.find('\0');
    return at == text.npos ? std::string_view() : text.substr(at + 1);
}

// The text of a text chunk.
std::string text_of(const Chunk &chunk) {
    std::string_view rest = after_nul(chunk.content);
    bool compressed = chunk.kind == "zTXt";
    if (chunk.kind == "zTXt") {
        rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
    } else if (chunk.kind == "iTXt") {
        compressed = !rest.empty() && rest[0] != '\0';
        rest.remove_prefix(std::min<std::size_t>(2, rest.size()));
        for (int i = 0; i < 2 && rest.find('\0') != rest.npos; ++i) // the language, and the translated keyword
            rest = after_nul(rest);
    }
    return compressed ? inflated(rest) : std::string(rest.substr(0, MAX_TEXT));
}

// ImageMagick's profile: three lines, then bytes in hexadecimal digits.
std::optional<std::string> from_hex(std::string_view text) {
    for (int line = 0; line < 3; ++line) {
        const std::size_t end = text.find('\n');
        text = end == text.npos ? std::string_view() : text.substr(end + 1);
    }
    std::string bytes, digits;
    for (const char digit : text) {
        if (digit == '\n')
            continue;
        const std::size_t value = std::string_view("0123456789abcdefABCDEF").find(digit);
        if (value == std::string_view::npos) {
            if (digits.empty() && (digit == ' ' || (digit >= '\t' && digit <= '\r')))
                continue; // between bytes, as in Python's bytes.fromhex
            return std::nullopt;
        }
        digits.push_back(static_cast<char>(value < 16 ? value : value - 6));
        if (digits.size() == 2) {
            bytes.push_back(static_cast<char>(digits[0] << 4 | digits[1]));
            digits.clear();
        }
    }
    return digits.empty() ? std::make_optional(bytes) : std::nullopt;
}

void read_header(const std::optional<Chunk> &header, PngImage &image) {
    if (!header || header->content.size() < HEADER_BYTES)
        refuse("it has no complete header");
    if (!header->has_right_checksum())
        refuse("its header has a wrong checksum");
    const std::string_view content = header->content;
    image.width = number(content, 0);
    image.height = number(content, 4);
    image.bits = static_cast<unsigned char>(content[8]);
    image.colour = static_cast<unsigned char>(content[9]);
    image.interlaced = content[12] != 0;
    if (content[11] != 0)
        refuse("its filters are of an unknown kind");
}

bool is_long_enough(std::string_view transparency, const std::optional<Chunk> &header) {
    const int colour = header && header->content.size() > 9 ? header->content[9] : 3;
    return transparency.size() >= (colour == 0 ? 2U : colour == 2 ? 6U : 1U);
}

} // namespace

PngImage read_png(std::string_view file) {
    PngImage image{};
    std::optional<Chunk> header, palette;
    std::map<std::string_view, Chunk> texts; // of several with one keyword the last counts
    Chunks chunks(file);
    for (Chunk chunk{}; chunks.next(chunk);) {
        const std::string_view kind = chunk.kind;
        if (kind == "IDAT") {
            if (chunk.missing > 0)
                image.cut_off =
                    std::make_unique<std::string>(std::string(chunk.content) += END.substr(0, chunk.missing));
            image.pixels.push_back(chunk.missing > 0 ? std::string_view(*image.cut_off) : chunk.content);
        } else if (kind == "IHDR") {
            header = header ? header : chunk;
        } else if (kind == "PLTE") {
            palette = palette ? palette : chunk;
        } else if (kind == "tRNS" && !image.transparency) {
            if (chunk.has_right_checksum() && is_long_enough(chunk.content, header))
                image.transparency = chunk.content;
        } else if (kind == "eXIf") {
            image.exif = chunk.content;
        } else if (kind == "tEXt" || kind == "zTXt" || kind == "iTXt") {
            const std::string_view start = chunk.content.substr(0, 80), keyword = start.substr(0, start.find('\0'));
            if (keyword == RAW_EXIF || keyword == XMP)
                texts[keyword] = chunk;
        }
    }
    read_header(header, image);
    if (palette && !palette->has_right_checksum())
        refuse("its palette has a wrong checksum");
    if (palette)
        image.palette = palette->content;
    if (const auto raw = texts.find(RAW_EXIF); !image.exif && raw != texts.end())
        image.exif = from_hex(text_of(raw->second));
    if (const auto xmp = texts.find(XMP); xmp != texts.end())
        image.xmp = text_of(xmp->second);
    if (image.pixels.empty())
        refuse("it has no pixels");
    return image;
}

} // namespace align
