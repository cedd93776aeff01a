// Text as BERT's vocabulary writes it: cleaned, ideographs set apart, without accents, in lower case.
#pragma once

#include <string>
#include <string_view>

namespace align {

// The `BertNormalizer` of the pinned `tokenizers` package, with clean_text.
struct BertNormalizer {
    bool handle_chinese_chars, strip_accents, lowercase;

    // Appends the normalized `text`, which must be valid UTF-8, to `result`.
    void append(std::string_view text, std::string &result) const;
};

} // namespace align
