# The tokenizer, the preprocessing of images and their decoders.
target_sources(align_objects PRIVATE
  src/added_tokens.cpp
  src/bert_normalizer.cpp
  src/token_trie.cpp
  src/tokenizer.cpp
  src/tokenizer_file.cpp
  src/unicode_tables.cpp
  src/utf8.cpp
  src/wordpiece.cpp
)
