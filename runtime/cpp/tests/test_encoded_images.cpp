// Files of all kinds against Python's pixels, and damaged ones.
#include <gtest/gtest.h>

#include "encoded_images.hpp"
#include "errors.hpp"
#include "orientation.hpp"
#include "vectors.hpp"

namespace {

using namespace align;

Background background(const std::string &alpha) {
    if (alpha == "drop")
        return {};
    const auto channel = [&](std::size_t at) {
        return static_cast<std::uint8_t>(std::stoi(alpha.substr(at, 2), nullptr, 16));
    };
    return Colour{channel(1), channel(3), channel(5)};
}

std::uint64_t rgb_checksum(const DecodedImage &image) {
    std::vector<std::uint8_t> rgb;
    for (std::size_t i = 0; i < image.width * image.height * 3; ++i)
        rgb.push_back(image.data[image.channels == 1 ? i / 3 : i]);
    return vectors::checksum(rgb.data(), rgb.size());
}

TEST(EncodedImages, GiveThePixelsOfThePythonRuntime) {
    const Json rows = vectors::json("images.json");
    EXPECT_GT(rows.size(), 60U);
    for (const Json &row : rows) {
        const std::string data = vectors::file("images/" + row["file"].get<std::string>());
        const auto decode = [&] { return decode_image(data, {}, background(row["alpha"])); };
        if (row.contains("error")) {
            EXPECT_THROW(decode(), InputError) << row;
            continue;
        }
        const DecodedImage image = decode();
        EXPECT_EQ(image.height, row["height"].get<std::size_t>()) << row;
        EXPECT_EQ(image.width, row["width"].get<std::size_t>()) << row;
        EXPECT_EQ(rgb_checksum(image), row["crc32"].get<std::uint64_t>()) << row;
    }
}

TEST(EncodedImages, EndAnywhereWithoutHarm) {
    for (const char *name :
         {"RGB.png", "P_transparent.png", "turned_6.png", "progressive_jpeg_420.jpg", "turned_6.jpg"}) {
        const std::string data = vectors::file(std::string("images/") + name);
        for (std::size_t size = 0; size < data.size(); size += 7)
            try {
                decode_image(std::string(data, 0, size)); // a copy, behind which a sanitizer sees
            } catch (const InputError &) {
            }
    }
}

TEST(EncodedImages, RespectTheirLimits) {
    const std::string data = vectors::file("images/RGB.png");
    const DecodedImage image = decode_image(data);
    EXPECT_NO_THROW(decode_image(data, {image.width * image.height}));
    EXPECT_THROW(decode_image(data, {image.width * image.height - 1}), InputError);
    EXPECT_THROW(decode_image(std::string((16 << 20) + 9, 'x'), {1}), InputError);
    EXPECT_THROW(decode_image(""), InputError);
    EXPECT_THROW(decode_image("GIF89a"), InputError);
}

TEST(Orientation, IsReadFromExifAndXmp) {
    const auto exif = [](const std::string &entry) {
        return std::string("Exif\0\0II\x2a\0\x08\0\0\0\x01\0", 16) + entry + std::string(4, '\0');
    };
    const auto of = [](const std::string &data) { return orientation_of({data, std::nullopt}); };
    EXPECT_EQ(of(exif(std::string("\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 12))), 6);
    EXPECT_EQ(of(exif(std::string("\x12\x01\x0b\0\x01\0\0\0\0\0\xa0\x40", 12))), 5); // 5.0
    EXPECT_EQ(of(exif(std::string("\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 12))), 1);
    EXPECT_EQ(of(exif(std::string("\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0", 12))), 1);
    EXPECT_EQ(of("Exif"), 1);
    EXPECT_EQ(orientation_of({std::nullopt, "x tiff:Orientation=\"8\""}), 8);
    EXPECT_EQ(orientation_of({std::nullopt, "tiff:Orientation tiff:Orientation>3<"}), 3);
}

} // namespace
