#include "orientation.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>

namespace align {

namespace {

constexpr std::uint16_t TAG = 0x0112;

// Integers of TIFF data in their byte order; the caller checks the bounds.
struct Reader {
    std::string_view data;
    bool is_little;

    std::uint64_t unsigned_at(std::size_t at, std::size_t bytes) const {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i)
            value = value << 8 | static_cast<unsigned char>(data[at + (is_little ? bytes - 1 - i : i)]);
        return value;
    }
    bool holds(std::uint64_t at, std::uint64_t bytes) const { return at <= data.size() && bytes <= data.size() - at; }
};

std::size_t unit_bytes(std::uint64_t type) {
    constexpr std::size_t BYTES[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    return type < std::size(BYTES) ? BYTES[type] : 0;
}

// The value of an entry if it is an orientation, else 0. 5 and 5.0 are one, 5.5 is none.
int orientation_value(const Reader &value, std::uint64_t type) {
    const auto whole = [](double number) {
        return number >= 2 && number <= 8 && number == std::floor(number) ? static_cast<int>(number) : 0;
    };
    const auto as = [&](auto number, std::size_t bytes) {
        const std::uint64_t bits = value.unsigned_at(0, bytes);
        const auto narrow = static_cast<std::uint32_t>(bits);
        bytes == sizeof narrow ? std::memcpy(&number, &narrow, bytes) : std::memcpy(&number, &bits, bytes);
        return static_cast<double>(number);
    };
    switch (type) {
    case 3: // unsigned
    case 4:
    case 13:
    case 16:
    case 6: // signed: a value of 2 to 8 looks the same
    case 8:
    case 9: {
        const std::uint64_t number = value.unsigned_at(0, unit_bytes(type));
        return number <= 8 ? whole(static_cast<double>(number)) : 0;
    }
    case 5: // rational, and signed
    case 10: {
        const std::uint64_t above = value.unsigned_at(0, 4), below = value.unsigned_at(4, 4);
        const auto number = [type](std::uint64_t bits) {
            return type == 5 ? static_cast<std::int64_t>(bits)
                             : static_cast<std::int64_t>(static_cast<std::int32_t>(bits));
        };
        return number(below) == 0 || number(above) % number(below) != 0
                   ? 0
                   : whole(static_cast<double>(number(above) / number(below)));
    }
    case 11:
        return whole(as(float{}, sizeof(float)));
    case 12:
        return whole(as(double{}, sizeof(double)));
    default:
        return 0;
    }
}

// The orientation in EXIF data, 0 for a value that is none; nothing where there is no such tag. The entries are read as
// Pillow reads them: all values together are at most as long as the data, and none is read after one that is cut off.
std::optional<int> from_exif(std::string_view data) {
    const std::string_view head = data.substr(0, 4);
    const auto is = [&](const char *bytes) { return head == std::string_view(bytes, 4); };
    const bool little = is("II\x2a\0") || is("II\0\x2a") || is("II\x2b\0");
    const bool big_tiff = is("MM\0\x2b") || is("II\x2b\0");
    if (!little && !is("MM\0\x2a") && !is("MM\x2a\0") && !is("MM\0\x2b"))
        return std::nullopt;
    const Reader reader{data, little};
    const std::size_t word = big_tiff ? 8 : 4, count_bytes = big_tiff ? 8 : 2, record = 4 + 2 * word;
    if (!reader.holds(word, word))
        return std::nullopt;
    const std::uint64_t start = reader.unsigned_at(word, word);
    if (!reader.holds(start, count_bytes))
        return std::nullopt;
    std::uint64_t count = reader.unsigned_at(start, count_bytes), room = data.size();
    std::set<std::uint64_t> seen;
    for (std::uint64_t at = start + count_bytes; count > 0 && reader.holds(at, record); at += record, --count) {
        const std::uint64_t tag = reader.unsigned_at(at, 2), type = reader.unsigned_at(at + 2, 2);
        const std::uint64_t values = reader.unsigned_at(at + 4, word), unit = unit_bytes(type);
        if (seen.count(tag) != 0 || unit == 0 || values == 0)
            continue;
        const bool is_inline = values <= word / unit;
        std::uint64_t place = at + 4 + word;
        if (!is_inline) {
            if (values > room / unit) {
                room = 0; // Python's room is negative from here on
                continue;
            }
            room -= values * unit;
            place = reader.unsigned_at(place, word);
            if (!reader.holds(place, values * unit))
                return std::nullopt;
        }
        seen.insert(tag);
        if (tag == TAG)
            return orientation_value({data.substr(place), little}, type);
    }
    return std::nullopt;
}

std::optional<int> from_xmp(std::string_view xmp) {
    constexpr std::string_view NAME = "tiff:Orientation";
    for (std::size_t at = xmp.find(NAME); at != xmp.npos; at = xmp.find(NAME, at + 1)) {
        std::string_view rest = xmp.substr(at + NAME.size());
        const std::size_t skipped = rest.substr(0, 2) == "=\"" ? 2 : rest.substr(0, 1) == ">" ? 1 : 0;
        rest.remove_prefix(skipped);
        if (skipped > 0 && !rest.empty() && rest[0] >= '0' && rest[0] <= '9')
            return rest[0] - '0';
    }
    return std::nullopt;
}

} // namespace

int orientation_of(const Metadata &metadata) {
    constexpr std::string_view PREFIX("Exif\0\0", 6);
    std::optional<int> value;
    if (metadata.exif) {
        std::string_view exif = *metadata.exif;
        for (int i = 0; i < 2 && exif.substr(0, PREFIX.size()) == PREFIX; ++i)
            exif.remove_prefix(PREFIX.size());
        value = from_exif(exif);
    }
    if (!value && metadata.xmp)
        value = from_xmp(*metadata.xmp);
    return value && *value >= 2 && *value <= 8 ? *value : 1;
}

DecodedImage upright(DecodedImage image, int orientation) {
    if (orientation == 1)
        return image;
    const bool transposed = orientation >= 5;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const std::size_t width = image.width, height = image.height;
    DecodedImage turned{transposed ? height : width, transposed ? width : height, image.channels, nullptr};
    turned.data.reset(new std::uint8_t[height * image.stride()]);
    const auto channels = static_cast<std::size_t>(image.channels);
    std::uint8_t *out = turned.data.get();
    for (std::size_t y = 0; y < turned.height; ++y)
        for (std::size_t x = 0; x < turned.width; ++x, out += channels) {
            const std::size_t column = transposed ? y : x, row = transposed ? x : y;
            const std::uint8_t *pixel =
                image.row(from_below ? height - 1 - row : row) + (from_right ? width - 1 - column : column) * channels;
            std::memcpy(out, pixel, channels);
        }
    return turned;
}

} // namespace align
