// Arguments of the C API that are wrong, without a bundle.
#include <gtest/gtest.h>

#include <string>

#include "align_runtime.h"

namespace {

TEST(CApi, TakesNoNull) {
    align_model *model = reinterpret_cast<align_model *>(1);
    float row[1];
    std::int64_t id = 0;
    std::size_t length = 0, height = 7, width = 7;
    std::uint8_t pixel = 0;
    EXPECT_EQ(align_open(nullptr, nullptr, &model), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(model, nullptr);
    EXPECT_EQ(align_open("bundle", nullptr, nullptr), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_embed_texts(nullptr, nullptr, 1, row, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_STREQ(align_last_error(), "the model is NULL; open one with align_open");
    EXPECT_EQ(align_embed_images(nullptr, nullptr, 1, row, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_embed_encoded(nullptr, nullptr, 1, row, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_embed_pixels(nullptr, &pixel, 1, row, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_tokenize(nullptr, "", &id, 1, &length), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_preprocess(nullptr, nullptr, &pixel, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_logits(nullptr, row, 1, row, 1, row, 1), ALIGN_ERROR_CONFIGURATION);
    EXPECT_EQ(align_embedding_dim(nullptr), 0U);
    EXPECT_EQ(align_max_length(nullptr), 0);
    align_image_size(nullptr, &height, &width);
    EXPECT_EQ(height + width, 0U);
    align_image_size(nullptr, nullptr, nullptr);
    align_close(nullptr);
}

TEST(CApi, KnowsAHandleThatIsNone) {
    int something = 0;
    auto *model = reinterpret_cast<align_model *>(&something);
    EXPECT_EQ(align_embed_texts(model, nullptr, 0, nullptr, 0), ALIGN_ERROR_CONFIGURATION);
    align_close(model);
    EXPECT_EQ(align_last_error_index(), -1);
}

TEST(CApi, TakesOptionsOfOlderReleasesAlone) {
    align_model *model = nullptr;
    align_options options = align_default_options();
    EXPECT_EQ(options.struct_size, sizeof options);
    for (const std::size_t size : {std::size_t{0}, sizeof options + 1, SIZE_MAX}) {
        options.struct_size = size;
        EXPECT_EQ(align_open("/nowhere", &options, &model), ALIGN_ERROR_CONFIGURATION);
    }
    options.struct_size = offsetof(align_options, manifest_sha256); // the first release; what follows is not read
    options.manifest_sha256 = reinterpret_cast<const char *>(1);
    EXPECT_EQ(align_open("/nowhere", &options, &model), ALIGN_ERROR_BUNDLE);
    EXPECT_EQ(std::string(align_last_error()).rfind("/nowhere does not exist", 0), 0U);
}

TEST(CApi, LongNamesGiveShortMessages) {
    align_model *model = nullptr;
    EXPECT_EQ(align_open(std::string(100000, 'x').c_str(), nullptr, &model), ALIGN_ERROR_BUNDLE);
    EXPECT_EQ(std::string(align_last_error()).size(), 502U); // 500 characters, of which the ellipsis has 3 bytes
}

TEST(CApi, HasAVersion) {
    EXPECT_STREQ(align_version(), ALIGN_VERSION);
}

} // namespace
