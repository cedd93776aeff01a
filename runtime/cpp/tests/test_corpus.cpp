// The corpus of the fuzzers, replayed.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz_targets.hpp"

namespace {

TEST(Corpus, IsRefusedOrTakenWithoutHarm) {
    for (const align::FuzzTarget &target : align::FUZZ_TARGETS) {
        std::size_t taken = 0, refused = 0;
        for (const auto &entry :
             std::filesystem::directory_iterator(std::filesystem::path(ALIGN_CORPUS) / target.name)) {
            std::ifstream stream(entry.path(), std::ios::binary);
            const std::string content(std::istreambuf_iterator<char>(stream), {});
            EXPECT_NO_THROW(++(target.run(content) ? taken : refused)) << entry.path();
        }
        EXPECT_GT(taken, 0U) << target.name; // or a fuzzer would start from nothing
        EXPECT_GT(refused, 0U) << target.name;
    }
}

} // namespace
