// The corpus of the fuzzers, replayed.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz_targets.hpp"

namespace {

TEST(Corpus, IsRefusedOrTakenWithoutHarm) {
    for (const align::FuzzTarget &target : align::FUZZ_TARGETS) {
        std::size_t files = 0;
        for (const auto &entry :
             std::filesystem::directory_iterator(std::filesystem::path(ALIGN_CORPUS) / target.name)) {
            std::ifstream stream(entry.path(), std::ios::binary);
            EXPECT_NO_THROW(target.run(std::string(std::istreambuf_iterator<char>(stream), {}))) << entry.path();
            ++files;
        }
        EXPECT_GT(files, 3U) << target.name;
    }
}

} // namespace
