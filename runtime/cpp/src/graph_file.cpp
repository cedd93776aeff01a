#include "graph_file.hpp"

#include <algorithm>
#include <cstdint>
#include <set>

#include "errors.hpp"
#include "foreign_text.hpp"
#include "regular_files.hpp"

namespace align {

namespace {

constexpr int MAX_FIELDS = 1000000; // of one file; the graphs of the published sizes have 60,000
constexpr unsigned VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5; // protobuf's wire types; groups (3, 4) are refused

enum class Kind { model, graph, node, attribute, tensor, entry };
enum class Meaning { refuse, skip, domain, key, value, message };

constexpr const char *NAMES[] = {"model", "graph", "node", "attribute", "tensor", "entry"};

struct Field {
    Meaning meaning;
    Kind message = Kind::model; // what to walk if the meaning is a message
};

bool among(std::uint64_t number, std::initializer_list<std::uint64_t> numbers) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

Field field(Kind kind, std::uint64_t number) {
    bool skipped = false;
    switch (kind) {
    case Kind::model:
        if (number == 7)
            return {Meaning::message, Kind::graph};
        skipped = among(number, {1, 2, 3, 4, 5, 6, 8, 14});
        break;
    case Kind::graph:
        if (number == 1 || number == 5)
            return {Meaning::message, number == 1 ? Kind::node : Kind::tensor};
        skipped = among(number, {2, 10, 11, 12, 13, 14, 16});
        break;
    case Kind::node:
        if (number == 5)
            return {Meaning::message, Kind::attribute};
        if (number == 7)
            return {Meaning::domain};
        skipped = among(number, {1, 2, 3, 4, 6, 9});
        break;
    case Kind::attribute:
        if (number == 5 || number == 10)
            return {Meaning::message, Kind::tensor};
        skipped = among(number, {1, 2, 3, 4, 7, 8, 9, 13, 20});
        break;
    case Kind::tensor:
        if (number == 13)
            return {Meaning::message, Kind::entry};
        skipped = among(number, {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16});
        break;
    case Kind::entry:
        if (number == 1 || number == 2)
            return {number == 1 ? Meaning::key : Meaning::value};
        break;
    }
    return {skipped ? Meaning::skip : Meaning::refuse};
}

// Why a field is refused.
std::string refusal(Kind kind, std::uint64_t number) {
    if (kind == Kind::model && number == 20)
        return "training information";
    if (kind == Kind::model && number == 25)
        return "functions";
    if (kind == Kind::attribute && (number == 6 || number == 11))
        return "subgraphs (If, Loop, Scan)";
    if ((kind == Kind::graph && number == 15) || (kind == Kind::attribute && (number == 22 || number == 23)))
        return "sparse weights";
    return "field " + std::to_string(number) + " in a " + NAMES[static_cast<int>(kind)];
}

// Why a file is not a graph as the exporter writes it.
struct Refused {
    std::string reason;
};

// The fields of one file: domains of its operators, and locations of its external data.
class Walk {
public:
    explicit Walk(std::string_view content) : content_(content) {}

    // Walks a message in the bytes from `at` to `end`.
    void message(Kind kind, std::size_t at, std::size_t end) {
        std::set<std::string> values;
        bool has_location = false;
        while (at < end) {
            if (++count_ > MAX_FIELDS)
                throw Refused{"it has more than " + std::to_string(MAX_FIELDS) + " fields"};
            const std::uint64_t tag = varint(at, end), number = tag >> 3;
            const unsigned wire = tag & 7;
            std::size_t begin = at;
            skip(wire, begin, at, end);
            const Field known = field(kind, number);
            if (known.meaning == Meaning::refuse)
                throw Refused{"it has " + refusal(kind, number)};
            if (known.meaning == Meaning::skip)
                continue;
            if (wire != BYTES)
                throw Refused{"field " + std::to_string(number) + " of a " + NAMES[static_cast<int>(kind)] +
                              " has wire type " + std::to_string(wire)};
            const std::string_view inside = content_.substr(begin, at - begin);
            if (known.meaning == Meaning::message)
                message(known.message, begin, at);
            else if (known.meaning == Meaning::domain)
                domains.emplace(inside);
            else if (known.meaning == Meaning::value)
                values.emplace(inside);
            else
                has_location = has_location || inside == "location";
        }
        if (has_location) // of several keys or values the last one counts for a parser, here all do
            locations.merge(values.empty() ? std::set<std::string>{""} : values);
    }

    std::set<std::string> domains, locations;

private:
    // Moves `at` behind the value of a field that starts there, and `begin` to where its content starts.
    void skip(unsigned wire, std::size_t &begin, std::size_t &at, std::size_t end) {
        std::uint64_t length = 0;
        if (wire == BYTES) {
            length = varint(at, end);
            begin = at;
        } else if (wire == VARINT) {
            varint(at, end);
        } else if (wire == FIXED64 || wire == FIXED32) {
            length = wire == FIXED64 ? 8 : 4;
        } else {
            throw Refused{"wire type " + std::to_string(wire) + " at byte " + std::to_string(at)};
        }
        if (length > end - at)
            throw Refused{"it ends within a field at byte " + std::to_string(begin)};
        at += static_cast<std::size_t>(length);
    }

    // The number at `at`, seven bits a byte; `at` moves behind it.
    std::uint64_t varint(std::size_t &at, std::size_t end) const {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 70 && at < end; shift += 7) {
            const auto byte = static_cast<unsigned char>(content_[at++]);
            const std::uint64_t bits = byte & 0x7fU;
            value |= shift == 63 && bits > 1 ? UINT64_MAX : bits << shift; // beyond 64 bits: no length is that large
            if (byte < 0x80)
                return value;
        }
        throw Refused{"a number that does not end at byte " + std::to_string(at)};
    }

    std::string_view content_;
    int count_ = 0;
};

} // namespace

void check_graph_file(const std::string &file, const std::optional<std::string> &data) {
    const MappedFile mapped(file);
    check_graph_bytes(mapped.content(), file, data);
}

void check_graph_bytes(std::string_view content, const std::string &subject, const std::optional<std::string> &data) {
    Walk walk(content);
    try {
        if (content.size() >= 8 && content.substr(4, 4) == "ORTM") // ONNX Runtime would read its own format
            throw Refused{"it is in ONNX Runtime's own format"};
        walk.message(Kind::model, 0, content.size());
    } catch (const Refused &refused) {
        throw BundleError(subject + " is not an ONNX graph as align-export writes it: " + refused.reason);
    }
    for (const std::string &domain : walk.domains)
        if (!domain.empty() && domain != "ai.onnx")
            throw BundleError(subject + " has operators of the domain " + in_quotes(domain) +
                              "; expected those of ONNX alone");
    for (const std::string &location : walk.locations)
        if (!data || location != *data)
            throw BundleError(subject + " has weights in " + in_quotes(location) + ", but the manifest lists " +
                              data.value_or("no file of weights") + " for it; export the checkpoint again");
}

} // namespace align
