// What is fuzzed of the leaves: anything may be refused with an error of ours, and nothing else may happen.
#pragma once

#include <string_view>

namespace align {

struct FuzzTarget {
    const char *name; // of its folder in tests/corpus
    void (*run)(std::string_view data);
};

extern const FuzzTarget FUZZ_TARGETS[4];

} // namespace align
