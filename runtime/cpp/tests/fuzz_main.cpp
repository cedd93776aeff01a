// libFuzzer's entry: ALIGN_FUZZ_TARGET chooses the target by name.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "fuzz_targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const char *const wanted = std::getenv("ALIGN_FUZZ_TARGET");
    for (const align::FuzzTarget &target : align::FUZZ_TARGETS)
        if (wanted != nullptr && std::strcmp(wanted, target.name) == 0) {
            target.run({reinterpret_cast<const char *>(data), size});
            return 0;
        }
    std::abort(); // no such target
}
