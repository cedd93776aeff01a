// A set of tokens in which the longest one at the start of a text is found without allocating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace align {

// Tries share one table; `root()` starts a new one. Any number of threads may search at once.
class TokenTrie {
public:
    using Node = std::uint32_t;

    struct Match {
        std::size_t length;
        std::int32_t value; // -1 for none
    };

    Node root();

    // Adds `token` with `value`, 0 or more. The tokens of all tries together have fewer than 2^28 bytes.
    void insert(Node root, std::string_view token, std::int32_t value);

    // The longest token, not empty, that `text` starts with.
    Match longest(Node root, std::string_view text) const {
        Match found{0, -1};
        Node node = root;
        for (std::size_t i = 0; i < text.size(); ++i) {
            node = child(node, text[i]);
            if (node == NONE)
                break;
            if (values_[node] >= 0)
                found = {i + 1, values_[node]};
        }
        return found;
    }

private:
    static constexpr Node NONE = 0;
    static constexpr int NODE_BITS = 28;
    static constexpr std::uint64_t NODE_MASK = (std::uint64_t{1} << NODE_BITS) - 1;

    static std::uint64_t edge(Node node, char byte) {
        return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    }

    std::size_t slot(std::uint64_t key) const {
        return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15U >> shift_); // Fibonacci hashing
    }

    Node child(Node node, char byte) const {
        const std::uint64_t key = edge(node, byte);
        for (std::size_t at = slot(key);; at = (at + 1) & (edges_.size() - 1)) {
            if (edges_[at] >> NODE_BITS == key)
                return static_cast<Node>(edges_[at] & NODE_MASK);
            if (edges_[at] == 0)
                return NONE;
        }
    }

    void put(std::uint64_t entry);
    void grow();

    // Edges in a hash table with open addressing, at most half full: parent (28 bits), byte (8), child (28).
    std::vector<std::uint64_t> edges_ = std::vector<std::uint64_t>(16);
    int shift_ = 60; // 64 − log2 of the size of the table
    std::size_t count_ = 0;
    std::vector<std::int32_t> values_ = {-1}; // by node; node 0 is NONE
};

} // namespace align
