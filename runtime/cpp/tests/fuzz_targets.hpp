// What is fuzzed: anything may be refused with an error of ours, and nothing else may happen.
#pragma once

#include <string_view>

namespace align {

struct FuzzTarget {
    const char *name; // of its folder in tests/corpus
    bool (*run)(std::string_view data); // whether it was taken
};

extern const FuzzTarget FUZZ_TARGETS[6];

} // namespace align
