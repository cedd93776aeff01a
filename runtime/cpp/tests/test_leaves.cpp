// Small modules without files or threads: hashes, text, values, batches, shapes of a GPU, walks of graphs, scores.
#include <gtest/gtest.h>

#include "buckets.hpp"
#include "errors.hpp"
#include "foreign_text.hpp"
#include "graph_file.hpp"
#include "json_values.hpp"
#include "scheduling.hpp"
#include "sha256.hpp"
#include "similarity.hpp"

namespace {

using namespace align;

TEST(Sha256, AgreesWithThePublishedVectors) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, TakesItsInputInAnyParts) {
    for (std::size_t length = 0; length < 200; ++length) {
        const std::string data(length, 'x');
        Sha256 parts;
        for (std::size_t at = 0; at < length; at += 7)
            parts.update(std::string_view(data).substr(at, 7));
        EXPECT_EQ(parts.hex(), sha256(data)) << length;
    }
}

TEST(ForeignText, EscapesWhatCannotBePrinted) {
    EXPECT_EQ(printable("a\x1b[2J\n\xe2\x80\xae\xf0\x9f\x98\x80\xff", 100),
              "a\\x1b[2J\\x0a\\u202e\xf0\x9f\x98\x80\\xff");
    EXPECT_TRUE(is_printable("caf\xc3\xa9"));
    EXPECT_FALSE(is_printable("\xe2\x80\x8b"));
}

TEST(ForeignText, CutsTheMiddleOfLongText) {
    EXPECT_EQ(printable("abcdefghij", 10), "abcdefghij");
    EXPECT_EQ(printable("abcdefghijk", 10), "abcd\xe2\x80\xa6ghijk");
    const std::string wide = printable(std::string(10000000, '\x01'), 500);
    EXPECT_EQ(character_count(wide), 500U);
}

TEST(JsonValues, TakesPlainPathsAlone) {
    for (const char *path : {"a", "onnx/a.onnx", "a/b/c", "...", "a..b", "~"})
        EXPECT_EQ(relative_path(path), path);
    const std::string deep = std::string(512, 'a');
    EXPECT_EQ(relative_path(deep), deep);
    for (const std::string &path : {std::string(), std::string("."), std::string("/a"), std::string("a/../b"),
                                    std::string("a//b"), std::string("a/"), std::string("./a"), std::string("a\\b"),
                                    std::string("c:x"), std::string("a\nb"), deep + "a"})
        EXPECT_THROW(relative_path(path), ConfigurationError) << path;
}

TEST(Scheduling, SortsTextsByLength) {
    EXPECT_EQ(length_batches({5, 1, 4, 1, 3}, 2), (Batches{{1, 3}, {4, 2}, {0}}));
    EXPECT_EQ(length_batches({}, 2), Batches{});
}

TEST(Scheduling, GivesStreamsTheSameNumberOfTokens) {
    EXPECT_EQ(token_batches({8, 2, 2, 2, 2}, 32, 2), (Batches{{1, 2, 3, 4}, {0}}));
    const Batches many = token_batches(std::vector<std::size_t>(100, 7), 32, 2); // 4 batches: a multiple of 2
    ASSERT_EQ(many.size(), 4U);
    for (const auto &batch : many)
        EXPECT_EQ(batch.size(), 25U);
}

TEST(Buckets, PadsToTheNextShape) {
    const Buckets buckets{{1, 8, 32}, {8, 16, 20}};
    const std::vector<Piece> pieces = buckets.pieces(33 + 2);
    ASSERT_EQ(pieces.size(), 2U);
    EXPECT_EQ(pieces[0].batch, 32U);
    EXPECT_EQ(pieces[1].start, 32U);
    EXPECT_EQ(pieces[1].count, 3U);
    EXPECT_EQ(pieces[1].batch, 8U);
    EXPECT_EQ(buckets.length(9), 16U);
    EXPECT_THROW(buckets.length(21), InputError);
}

// Fields of protobuf: number and wire type in one byte, a length, the content.
std::string field(int number, const std::string &content) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(content.size())} + content;
}

TEST(GraphFile, TakesWhatTheExporterWrites) {
    const std::string node = field(1, "x") + field(2, "y") + field(4, "Relu") + field(7, "ai.onnx");
    const std::string weights = field(8, "w") + field(13, field(1, "location") + field(2, "data"));
    const std::string graph = field(7, field(1, node) + field(5, weights));
    EXPECT_NO_THROW(check_graph_bytes(graph, "graph", "data"));
    EXPECT_THROW(check_graph_bytes(graph, "graph", std::nullopt), BundleError);
    EXPECT_THROW(check_graph_bytes(graph, "graph", "other"), BundleError);
}

TEST(GraphFile, RefusesEverythingElse) {
    const std::string subgraph = field(7, field(1, field(5, field(6, ""))));
    const std::string domain = field(7, field(1, field(7, "com.microsoft")));
    for (const std::string &graph : {subgraph, domain, std::string("\x3a"), std::string("\x3a\x05\x00"),
                                     std::string("\x0b"), std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
                                     std::string("aaaaORTM"), std::string("\xca\x01\x00", 3)})
        EXPECT_THROW(check_graph_bytes(graph, "graph", std::nullopt), BundleError);
}

TEST(Similarity, DividesCosinesByTheTemperature) {
    const float images[] = {1, 0, 0, 1}, texts[] = {0.6F, 0.8F}, longer[] = {2, 0}, nan[] = {NAN, 0};
    float out[2];
    logits(images, 2, texts, 1, 2, 0.5, out);
    EXPECT_FLOAT_EQ(out[0], 1.2F);
    EXPECT_FLOAT_EQ(out[1], 1.6F);
    EXPECT_THROW(logits(longer, 1, texts, 1, 2, 0.5, out), InputError);
    EXPECT_THROW(logits(images, 1, nan, 1, 2, 0.5, out), InputError);
    EXPECT_THROW(logits(images, 1, texts, 1, 2, 1e-39, out), BundleError);
}

} // namespace
