#include <align_runtime.hpp>

static_assert(!std::is_copy_constructible_v<align_runtime::Model>);
static_assert(std::is_nothrow_move_constructible_v<align_runtime::Model>);
