#include "bert_normalizer.hpp"

#include <algorithm>
#include <vector>

#include "unicode_tables.hpp"
#include "utf8.hpp"

namespace align {

namespace {

constexpr char32_t HANGUL_FIRST = 0xac00, HANGUL_LAST = 0xd7a3, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7;
constexpr char32_t V_COUNT = 21, T_COUNT = 28;

// One text on its way; combining characters wait until all that stand in a row with them are known.
class Normalization {
public:
    Normalization(const BertNormalizer &options, std::string &result) : options_(options), result_(result) {}

    void ascii(std::string_view text) {
        settle();
        for (const char character : text) {
            const auto point = static_cast<unsigned char>(character);
            const std::uint16_t flags = unicode::flags(point);
            if ((flags & unicode::REMOVED) != 0)
                continue;
            const bool upper = options_.lowercase && point >= 'A' && point <= 'Z';
            result_.push_back((flags & unicode::SPACE) != 0 ? ' ' : upper ? static_cast<char>(point + 32) : character);
        }
    }

    void add(char32_t point) {
        const std::uint16_t flags = unicode::flags(point);
        if ((flags & unicode::REMOVED) != 0)
            return;
        if ((flags & unicode::SPACE) != 0)
            return put(' ', 0);
        const bool apart = options_.handle_chinese_chars && (flags & unicode::IDEOGRAPH) != 0;
        if (apart)
            put(' ', 0);
        if (options_.strip_accents)
            decompose(point, flags);
        else
            put(point, flags);
        if (apart)
            put(' ', 0);
    }

    void settle() {
        if (waiting_.empty())
            return;
        std::stable_sort(waiting_.begin(), waiting_.end(), [](char32_t left, char32_t right) {
            return unicode::combining_rank(left) < unicode::combining_rank(right);
        });
        for (const char32_t point : waiting_)
            write(point, unicode::flags(point));
        waiting_.clear();
    }

private:
    void decompose(char32_t point, std::uint16_t flags) {
        if ((flags & unicode::DECOMPOSED) == 0) {
            put_unless_mark(point);
        } else if (point >= HANGUL_FIRST && point <= HANGUL_LAST) {
            const char32_t index = point - HANGUL_FIRST;
            put_unless_mark(L_BASE + index / (V_COUNT * T_COUNT));
            put_unless_mark(V_BASE + index / T_COUNT % V_COUNT);
            if (index % T_COUNT != 0)
                put_unless_mark(T_BASE + index % T_COUNT);
        } else {
            for (const char32_t part : unicode::decomposition(point))
                put_unless_mark(part);
        }
    }

    void put_unless_mark(char32_t point) {
        const std::uint16_t flags = unicode::flags(point);
        if ((flags & unicode::MARK) == 0)
            put(point, flags);
        else if ((flags & unicode::COMBINING) == 0)
            settle(); // it is not moved, and nothing past it
    }

    void put(char32_t point, std::uint16_t flags) {
        if (options_.strip_accents && (flags & unicode::COMBINING) != 0) {
            waiting_.push_back(point);
            return;
        }
        settle();
        write(point, flags);
    }

    void write(char32_t point, std::uint16_t flags) {
        if (options_.lowercase && (flags & unicode::LOWERED) != 0)
            for (const char32_t lower : unicode::lower(point))
                utf8::append(result_, lower);
        else
            utf8::append(result_, point);
    }

    const BertNormalizer &options_;
    std::string &result_;
    std::vector<char32_t> waiting_;
};

bool is_ascii(char byte) {
    return static_cast<unsigned char>(byte) < 0x80;
}

} // namespace

void BertNormalizer::append(std::string_view text, std::string &result) const {
    Normalization normalization(*this, result);
    for (std::size_t i = 0; i < text.size();) {
        std::size_t end = i;
        while (end < text.size() && is_ascii(text[end]))
            ++end;
        if (end > i) {
            normalization.ascii(text.substr(i, end - i));
            i = end;
        } else {
            normalization.add(utf8::next(text, i));
        }
    }
    normalization.settle();
}

} // namespace align
