// Token ids against Python's, and what is refused.
#include <gtest/gtest.h>

#include <thread>

#include "errors.hpp"
#include "tokenizer.hpp"
#include "vectors.hpp"

namespace {

using namespace align;
using Ids = std::vector<std::int64_t>;

Tokenizer tokenizer(std::int32_t max_length = 24) {
    return Tokenizer::from_json(vectors::file("tokenizer.json"), max_length, 0);
}

TEST(Tokenizer, GivesTheIdsOfThePythonRuntime) {
    const Json rows = vectors::json("texts.json");
    const Tokenizer ours = tokenizer(rows["max_length"].get<std::int32_t>());
    EXPECT_GT(rows["texts"].size(), 500U);
    for (const Json &row : rows["texts"])
        EXPECT_EQ(ours.encode(row["text"].get<std::string>()), row["ids"].get<Ids>()) << row["text"];
}

TEST(Tokenizer, TakesAndRefusesWhatPythonDoes) {
    const Json whole = vectors::json("tokenizer.json");
    for (const Json &variant : vectors::json("tokenizer_variants.json")) {
        Json patched = whole;
        patched.merge_patch(variant["patch"]);
        const auto open = [&] { Tokenizer::from_json(patched.dump(), 24, 0); };
        if (variant["accepted"].get<bool>())
            EXPECT_NO_THROW(open()) << variant;
        else
            EXPECT_THROW(open(), BundleError) << variant;
    }
}

TEST(Tokenizer, TruncatesFromTheRight) {
    const Ids whole = tokenizer(512).encode("a b c d e f g");
    for (std::int32_t length = 3; length < 12; ++length) {
        Ids expected(whole.begin(), whole.begin() + std::min<std::ptrdiff_t>(length, 9));
        expected.back() = whole.back();
        EXPECT_EQ(tokenizer(length).encode("a b c d e f g"), expected) << length;
    }
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
    const std::pair<std::string, int> texts[] = {
        {"\xff", 0},
        {"abcdefgh\x80", 8},
        {"a\xc3", 1},
        {"\xc0\x80", 0},
        {"a\xed\xa0\x80 lone", 1},
        {"\xf4\x90\x80\x80", 0},
        {"\xe2\x82", 0},
        {"caf\xc3\xa9 \xe2\x28", 6},
        {"\xf0\x80\x80\x80", 0},
        {"abcdefgh\xe0\x80\x80", 8},
        {"\xf5\x80\x80\x80", 0},
        {"a\xc3\x28", 1},
    };
    for (const auto &[text, offset] : texts)
        try {
            tokenizer().encode(text);
            ADD_FAILURE() << offset;
        } catch (const InputError &error) {
            EXPECT_NE(error.message.find("at byte " + std::to_string(offset) + ";"), std::string::npos)
                << error.message;
        }
}

TEST(Tokenizer, RefusesValuesOutOfRange) {
    const std::string file = vectors::file("tokenizer.json");
    for (const std::int32_t length : {-1, 0, 2, (1 << 20) + 1})
        EXPECT_THROW(Tokenizer::from_json(file, length, 0), ConfigurationError) << length;
    for (const std::int64_t pad : {std::int64_t{-1}, std::int64_t{1} << 40})
        EXPECT_THROW(Tokenizer::from_json(file, 24, pad), ConfigurationError) << pad;
    EXPECT_EQ(tokenizer().vocab_size(),
              static_cast<std::int32_t>(vectors::json("tokenizer.json")["added_tokens"].back()["id"]) + 1);
}

TEST(Tokenizer, ReadsLongHostileTextsInLinearTime) {
    const Tokenizer ours = tokenizer(1 << 20);
    std::string marks = "a", spaces;
    for (int i = 0; i < 300000; ++i) {
        marks += i % 2 == 0 ? "\xe0\xbe\xb4" : "\xf0\x9d\x85\xa5"; // combining, of two classes, not removed by accents
        spaces += " <img";
    }
    EXPECT_EQ(ours.encode(marks).size(), 3U); // one word, far too long
    EXPECT_GT(ours.encode(spaces).size(), 300000U);
    EXPECT_EQ(ours.encode(std::string(1000000, ' ')).size(), 2U);
}

TEST(Tokenizer, IsSharedByThreads) {
    const Tokenizer ours = tokenizer();
    const Json rows = vectors::json("texts.json")["texts"];
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (const Json &row : rows)
                EXPECT_EQ(ours.encode(row["text"].get<std::string>()), row["ids"].get<Ids>());
        });
    for (std::thread &thread : threads)
        thread.join();
}

} // namespace
