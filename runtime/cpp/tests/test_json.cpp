#include <gtest/gtest.h>

#include "errors.hpp"
#include "json.hpp"

namespace {

align::Json parsed(const std::string &text) {
    return align::parse_object(text, "file", 1 << 20);
}

TEST(Json, ReadsAnObject) {
    EXPECT_EQ(parsed("\xEF\xBB\xBF{\"a\": [1, 2.5]}")["a"][1], 2.5);
}

TEST(Json, RefusesWhatIsNoObject) {
    for (const char *text : {"", "[]", "{", "{\"a\": NaN}", "{} {}", "{\"a\": \"\\ud800\"}", "{\"a\": \"\xff\"}"})
        EXPECT_THROW(parsed(text), align::BundleError) << text;
}

TEST(Json, RefusesWhatFollowsTheObject) {
    EXPECT_THROW(parsed(std::string("{}\0 x", 5)), align::BundleError);
    EXPECT_THROW(parsed("\xEF\xBB\xBF\xEF\xBB\xBF{}"), align::BundleError);
}

TEST(Json, RefusesDeepNesting) {
    const auto nested = [](int depth) {
        const auto count = static_cast<std::size_t>(depth - 1);
        return "{\"a\":" + std::string(count, '[') + std::string(count, ']') + "}";
    };
    EXPECT_NO_THROW(parsed(nested(63)));
    EXPECT_THROW(parsed(nested(65)), align::BundleError);
    EXPECT_THROW(parsed(nested(100000)), align::BundleError);
}

} // namespace
