// Preprocessing against Python's pixels, and what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "encoded_images.hpp"
#include "errors.hpp"
#include "vectors.hpp"

namespace {

using namespace align;

Json configuration() {
    return {{"size", {{"height", 20}, {"width", 30}}},
            {"resample", 2},
            {"crop_size", nullptr},
            {"rescale_factor", 0.5},
            {"rescale_offset", true},
            {"image_mean", nullptr},
            {"image_std", nullptr},
            {"include_top", false}};
}

TEST(Preprocessing, GivesThePixelsOfThePythonRuntime) {
    const Json rows = vectors::json("pixels.json");
    EXPECT_GT(rows.size(), 100U);
    for (const Json &row : rows) {
        const DecodedImage image = decode_image(vectors::file("images/" + row["file"].get<std::string>()));
        const Preprocessing config = Preprocessing::from_json(row["preprocessing"]);
        std::vector<std::uint8_t> pixels(config.pixels_bytes());
        preprocess(config, image.view(), pixels.data());
        EXPECT_EQ(vectors::checksum(pixels.data(), pixels.size()), row["crc32"].get<std::uint64_t>()) << row;
    }
}

TEST(Preprocessing, RefusesWhatPythonRefuses) {
    EXPECT_NO_THROW(Preprocessing::from_json(configuration()));
    const Json patches[] = {
        {{"resample", 6}},
        {{"resample", -1}},
        {{"resample", 2.0}},
        {{"resample", true}},
        {{"size", 3}},
        {{"size", {{"height", 8193}}}},
        {{"size", {{"depth", 2}}}},
        {{"crop_size", Json::object()}},
        {{"rescale_factor", "1"}},
        {{"rescale_offset", 1}},
        {{"image_mean", {0, 0}}},
        {{"image_std", {1, 1, 1}}},
        {{"include_top", true}},
        {{"extra", 1}},
        {{"rescale_factor", 1e300}},
    };
    for (const Json &patch : patches) {
        Json values = configuration();
        values.merge_patch(patch);
        EXPECT_THROW(Preprocessing::from_json(values), ConfigurationError) << patch;
    }
    for (const char *key : {"size", "resample", "crop_size", "image_mean", "include_top"}) {
        Json values = configuration();
        values.erase(key);
        EXPECT_THROW(Preprocessing::from_json(values), ConfigurationError) << key;
    }
    for (const char *key : {"size", "resample", "rescale_factor"}) {
        Json values = configuration();
        values[key] = nullptr;
        EXPECT_THROW(Preprocessing::from_json(values), ConfigurationError) << key;
    }
    Json zero = configuration();
    zero["image_mean"] = zero["image_std"] = {0, 0, 0};
    EXPECT_THROW(Preprocessing::from_json(zero), ConfigurationError);
}

TEST(Preprocessing, NormalizesInTheStepsOfTransformers) {
    Json values = configuration();
    values["image_mean"] = {0.25, 0.5, 0.75};
    values["image_std"] = {0.5, 0.25, 2};
    const Preprocessing config = Preprocessing::from_json(values);
    EXPECT_EQ(config.table[0][3], ((1.5F - 1.0F) - 0.25F) / 0.5F);
    std::vector<std::uint8_t> pixels(config.pixels_bytes(), 3);
    const std::vector<float> normalized = config.normalize(pixels, 1);
    ASSERT_EQ(normalized.size(), pixels.size());
    EXPECT_EQ(normalized.front(), config.table[0][3]);
    EXPECT_EQ(normalized.back(), config.table[2][3]);
}

TEST(Preprocessing, RefusesImagesThatCannotBe) {
    const Preprocessing config = Preprocessing::from_json(configuration());
    const std::uint8_t data[4] = {};
    std::vector<std::uint8_t> pixels(config.pixels_bytes());
    const ImageView images[] = {{data, 0, 1, 4, 1},
                                {data, 1, 0, 4, 1},
                                {nullptr, 1, 1, 4, 1},
                                {data, 1, 1, 2, 3},
                                {data, 1, 1, 4, 2},
                                {data, 100000, 1, 400000, 3},
                                {data, 1, 65536, 3, 3},
                                {data, 65535, 65535, 196605, 3},
                                {data, SIZE_MAX, SIZE_MAX, SIZE_MAX, 3},
                                {data, 1, 2, SIZE_MAX, 3}};
    for (const ImageView &image : images)
        EXPECT_THROW(preprocess(config, image, pixels.data()), InputError) << image.width << " " << image.height;
    EXPECT_NO_THROW(preprocess(config, {data, 1, 1, 4, 4}, pixels.data()));
}

TEST(Transparency, IsLaidOnAColour) {
    const std::uint8_t pixel[] = {200, 100, 50, 51}; // a fifth
    const Colour background{10, 20, 255};
    EXPECT_EQ(composite({pixel, 1, 1, 4, 4}, background), (std::vector<std::uint8_t>{48, 36, 214}));
    EXPECT_EQ(composite_pixel(pixel, background), (Colour{48, 36, 214}));
}

} // namespace
