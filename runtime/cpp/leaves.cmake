# The tokenizer, the preprocessing of images and their decoders.
target_sources(align_objects PRIVATE
  src/added_tokens.cpp
  src/bert_normalizer.cpp
  src/image_size.cpp
  src/images.cpp
  src/preprocessing.cpp
  src/resample.cpp
  src/resample_avx2.cpp
  src/resample_filters.cpp
  src/resample_passes.cpp
  src/token_trie.cpp
  src/tokenizer.cpp
  src/tokenizer_file.cpp
  src/transparency.cpp
  src/unicode_tables.cpp
  src/utf8.cpp
  src/wordpiece.cpp
)
# The weights of the resize are Pillow's to the bit, which a fused multiplication and addition would change.
set_source_files_properties(src/resample_filters.cpp src/preprocessing.cpp src/transparency.cpp
  PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
