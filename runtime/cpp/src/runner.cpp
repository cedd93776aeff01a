#include "runner.hpp"

#include "errors.hpp"

namespace align {

std::size_t Input::elements() const {
    std::size_t count = 1;
    for (const std::int64_t size : shape)
        count *= static_cast<std::size_t>(size);
    return count;
}

std::size_t Input::bytes() const {
    const std::size_t size = type == ElementType::uint8 ? 1 : type == ElementType::int64 ? 8 : 4;
    return elements() * size;
}

void throw_out_of_memory(const std::string &action) {
    throw DeviceError("out of memory: cannot " + action +
                      ". Pass fewer inputs at once, load one tower (towers), without streams (streams=1), or raise the "
                      "limit of memory");
}

std::string shapes_of(const std::vector<Input> &inputs) {
    std::string text;
    for (const Input &input : inputs)
        text += (text.empty() ? "" : ", ") + std::string(input.name) + " " + shown_shape(input.shape);
    return text;
}

std::string shown_shape(const std::vector<std::int64_t> &shape) {
    std::string text = "(";
    for (const std::int64_t size : shape)
        text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + ")";
}

} // namespace align
