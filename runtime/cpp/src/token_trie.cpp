#include "token_trie.hpp"

#include <utility>

namespace align {

TokenTrie::Node TokenTrie::root() {
    values_.push_back(-1);
    return static_cast<Node>(values_.size() - 1);
}

void TokenTrie::insert(Node root, std::string_view token, std::int32_t value) {
    Node node = root;
    for (const char byte : token) {
        Node next = child(node, byte);
        if (next == NONE) {
            next = this->root();
            if (2 * ++count_ > edges_.size())
                grow();
            put(edge(node, byte) << NODE_BITS | next);
        }
        node = next;
    }
    values_[node] = value;
}

void TokenTrie::put(std::uint64_t entry) {
    std::size_t at = slot(entry >> NODE_BITS);
    while (edges_[at] != 0)
        at = (at + 1) & (edges_.size() - 1);
    edges_[at] = entry;
}

void TokenTrie::grow() {
    const std::vector<std::uint64_t> old = std::exchange(edges_, std::vector<std::uint64_t>(2 * edges_.size()));
    --shift_;
    for (const std::uint64_t entry : old)
        if (entry != 0)
            put(entry);
}

} // namespace align
