# The tokenizer, the preprocessing of images and their decoders.
find_package(ZLIB REQUIRED)
target_sources(align_objects PRIVATE
  src/added_tokens.cpp
  src/bert_normalizer.cpp
  src/encoded_images.cpp
  src/image_size.cpp
  src/images.cpp
  src/jpeg_container.cpp
  src/jpeg_decoder.cpp
  src/orientation.cpp
  src/png_container.cpp
  src/png_decoder.cpp
  src/png_rows.cpp
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
target_link_libraries(align_objects PUBLIC ZLIB::ZLIB)
# The weights of the resize are Pillow's to the bit, which a fused multiplication and addition would change.
set_source_files_properties(src/resample_filters.cpp src/preprocessing.cpp src/transparency.cpp
  PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

if(ALIGN_BUILD_TESTS)
  target_sources(align_tests PRIVATE
    tests/fuzz_targets.cpp
    tests/test_corpus.cpp
    tests/test_encoded_images.cpp
    tests/test_preprocessing.cpp
    tests/test_resample.cpp
    tests/test_tokenizer.cpp
  )
  target_compile_definitions(align_tests PRIVATE
    ALIGN_CORPUS="${CMAKE_CURRENT_SOURCE_DIR}/tests/corpus"
    ALIGN_VECTORS="${CMAKE_CURRENT_SOURCE_DIR}/../../tests/vectors")

  # Functions of the leaves for tests/cpp, which compares them with Python in bulk.
  add_library(align_leaf_shim SHARED tests/leaf_shim.cpp)
  set_target_properties(align_leaf_shim PROPERTIES CXX_VISIBILITY_PRESET hidden)
  target_link_libraries(align_leaf_shim PRIVATE align_objects)
  target_compile_options(align_leaf_shim PRIVATE ${ALIGN_WARNINGS})
endif()

# The fuzzers, with clang: ALIGN_FUZZ_TARGET=text align_fuzz runtime/cpp/tests/corpus/text
option(ALIGN_BUILD_FUZZERS "Build the fuzzers of the leaves (clang's libFuzzer)" OFF)
if(ALIGN_BUILD_FUZZERS)
  add_executable(align_fuzz tests/fuzz_main.cpp tests/fuzz_targets.cpp)
  target_compile_options(align_objects PRIVATE -fsanitize=fuzzer-no-link)
  target_compile_definitions(align_fuzz PRIVATE
    ALIGN_VECTORS="${CMAKE_CURRENT_SOURCE_DIR}/../../tests/vectors")
  target_link_options(align_fuzz PRIVATE -fsanitize=fuzzer)
  target_link_libraries(align_fuzz PRIVATE align_objects)
endif()
