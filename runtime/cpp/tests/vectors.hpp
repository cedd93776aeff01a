// The vectors of tests/vectors, to which the Python runtime is held, too.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include <zlib.h>

#include "json.hpp"

namespace align::vectors {

inline std::string file(const std::string &name) {
    std::ifstream stream(ALIGN_VECTORS "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline Json json(const std::string &name) {
    return Json::parse(file(name));
}

inline std::uint64_t checksum(const std::uint8_t *bytes, std::size_t size) {
    return crc32_z(0, bytes, size);
}

} // namespace align::vectors
