#include <align_runtime.hpp>

#include <span>

static_assert(std::is_constructible_v<std::span<const float>, align_runtime::View>);
