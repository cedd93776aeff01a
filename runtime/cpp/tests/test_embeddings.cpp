// Embeddings of align-tiny against those of the Python runtime. It needs ONNX Runtime and, in ALIGN_TEST_BUNDLE, the
// bundle of reference/align-tiny.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "align_runtime.hpp"
#include "vectors.hpp"

namespace {

using namespace align;

constexpr float TOLERANCE = 1e-6F; // processors differ in the order of their sums

void expect_rows(const align_runtime::Matrix &rows, const Json &expected) {
    ASSERT_EQ(rows.rows(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto row = expected[i]["row"].get<std::vector<float>>();
        ASSERT_EQ(rows.dim(), row.size());
        for (std::size_t at = 0; at < row.size(); ++at)
            ASSERT_NEAR(rows[i][at], row[at], TOLERANCE) << expected[i];
    }
}

TEST(Embeddings, AreThoseOfThePythonRuntime) {
    const char *bundle = std::getenv("ALIGN_TEST_BUNDLE");
    if (bundle == nullptr)
        GTEST_SKIP() << "ALIGN_TEST_BUNDLE names no bundle; pytest tests/cpp gives one";
    align_runtime::Model model(bundle);
    const Json wanted = vectors::json("embeddings.json");
    std::vector<std::string> texts, files;
    for (const Json &row : wanted["texts"])
        texts.push_back(row["text"].get<std::string>());
    for (const Json &row : wanted["images"])
        files.push_back(vectors::file("images/" + row["file"].get<std::string>()));
    std::vector<align_bytes> encoded;
    for (const std::string &file : files)
        encoded.push_back({reinterpret_cast<const std::uint8_t *>(file.data()), file.size()});
    expect_rows(model.embed_texts(texts), wanted["texts"]);
    expect_rows(model.embed_encoded(encoded), wanted["images"]);
}

} // namespace
