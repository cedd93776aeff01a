/* align_runtime: ALIGN embeddings of texts and images from a bundle, as align-export writes it. C99 and C++17.
 *
 *     #include <align_runtime.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     int main(void) {
 *         const char *texts[] = {"a photo of a cat", "a photo of a dog"};
 *         align_model *model = NULL;
 *         if (align_open("build/align-base", NULL, &model) != ALIGN_OK) {
 *             fprintf(stderr, "%s\n", align_last_error());
 *             return 1;
 *         }
 *         size_t dim = align_embedding_dim(model);
 *         float *rows = malloc(2 * dim * sizeof *rows);
 *         align_status status = align_embed_texts(model, texts, 2, rows, 2 * dim);
 *         if (status == ALIGN_OK)
 *             printf("%f %f ...\n", rows[0], rows[1]);
 *         else
 *             fprintf(stderr, "%s\n", align_last_error());
 *         free(rows);
 *         align_close(model);
 *         return status == ALIGN_OK ? 0 : 1;
 *     }
 *
 * Threads: any number of threads may call one model, and any function at any time; nothing needs a lock. Calls share
 * the threads of the model, so a service with many clients should limit the calls that run at once.
 *
 * Memory: the caller owns all buffers, before and after a call; nothing that is passed is kept. The library owns the
 * model, until align_close, and the texts that align_last_error and align_version return. Capacities count elements:
 * floats, ids, bytes. After an error the content of an output buffer is undefined.
 *
 * Errors: a function that can fail returns an align_status; nothing is thrown, printed or aborted. align_last_error has
 * the message: one line of at most 500 characters with what happened, the value seen, and the fix.
 *
 * A closed model: a call with it is ALIGN_ERROR_CONFIGURATION, for ever: handles are not used again, and none is
 * dereferenced. Calls that are inside while another thread closes the model end normally; align_close waits for them.
 *
 * Fork: open the model after the fork. In a child, a model that was opened before is ALIGN_ERROR_CONFIGURATION, and
 * closing it does nothing.
 *
 * Environment: before the first align_open loads ONNX Runtime it sets ORT_DISABLE_TELEMETRY=1, unless the variable is
 * set: otherwise ONNX Runtime starts a thread that sends usage data. A program whose other threads read the environment
 * at that moment sets it earlier itself.
 */
#ifndef ALIGN_RUNTIME_H
#define ALIGN_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#if defined(ALIGN_RUNTIME_BUILD)
#define ALIGN_API __attribute__((visibility("default")))
#else
#define ALIGN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call returns: one code per class of align_runtime.errors in Python, with the same numbers for ever. */
typedef enum align_status {
    ALIGN_OK = 0,
    ALIGN_ERROR_CONFIGURATION = 1,       /* an option or argument is unknown, missing or out of range; a closed model */
    ALIGN_ERROR_CHECKPOINT = 2,          /* never returned: the runtime reads no checkpoints */
    ALIGN_ERROR_INPUT = 3,               /* an image or text cannot be embedded; align_last_error_index says which */
    ALIGN_ERROR_BUNDLE = 4,              /* the bundle is missing, damaged or of another schema version */
    ALIGN_ERROR_BACKEND_UNAVAILABLE = 5, /* a library or device that was asked for is not available */
    ALIGN_ERROR_DEVICE = 6,              /* out of memory or threads, or a device failed while it computed */
    ALIGN_ERROR_BUILD = 7,               /* never returned */
    ALIGN_ERROR_PRECISION = 8,           /* never returned */
    ALIGN_ERROR_PARITY = 9,              /* never returned */
    ALIGN_BUFFER_TOO_SMALL = 10,         /* the message says which capacity is needed */
    ALIGN_ERROR_INTERNAL = 11            /* a fault of this library */
} align_status;

typedef struct align_model align_model;

/* How a bundle is opened. Begin with align_default_options() and change what differs; NULL and 0 mean the default. */
typedef struct align_options {
    size_t struct_size;    /* set by align_default_options; later releases append fields */
    const char *precision; /* "fp32" (default), "fp16", "int8", or exactly "int8_cpu"; "bf16" on "openvino" */
    const char *device;    /* "cpu" (default), "openvino", "cuda", "tensorrt-rtx", "cuda:1"; one that is missing is an
                              error */
    int32_t threads;       /* of one run on a CPU, and of preparation; 0: all cores that the process may use */
    int32_t streams;       /* single-threaded runs that share the work of many inputs; 0: one per thread. With
                              1 the weights are in memory once, not twice, and the throughput is lower */
    int32_t check_hashes;  /* not 0: compare the sha256 of every file used; sizes are always compared */
    const char *towers;    /* "vision,text" (default), "vision" or "text" */
    const char *onnxruntime_library; /* path of libonnxruntime.so; default: $ALIGN_ONNXRUNTIME_LIBRARY, or else
                                        libonnxruntime.so.1, libonnxruntime.so or the newest
                                        libonnxruntime.so.1.N that the dynamic loader finds */
    const char *manifest_sha256; /* what the sha256 of align.json must be, in hexadecimal; hashes are checked then */
    const char *alpha;           /* of images: "drop" (default) ignores it, "#rrggbb" is laid behind the image */
    size_t max_pixels;           /* width * height of an image; 0: 67108864 */
    const char *provider_library; /* path of the plugin provider of "openvino" or "tensorrt-rtx"; default:
                                     $ALIGN_PROVIDER_LIBRARY, or else its name as the dynamic loader finds it */
} align_options;

ALIGN_API align_options align_default_options(void);

/* Opens the bundle in a folder; `options` may be NULL. `*out` is NULL after an error. The threads that it starts are
 * there until align_close. ALIGN_ERROR_BUNDLE: it is missing, incomplete or was changed. ALIGN_ERROR_CONFIGURATION: an
 * option is wrong, or the bundle has no such precision. ALIGN_ERROR_BACKEND_UNAVAILABLE: ONNX Runtime or the device is
 * missing. ALIGN_ERROR_DEVICE: there is not enough memory, or threads cannot be started. */
ALIGN_API align_status align_open(const char *bundle, const align_options *options, align_model **out);

/* Waits for calls of other threads and frees the model. NULL, or a model that is closed, is fine. */
ALIGN_API void align_close(align_model *model);

/* Floats of an embedding; tokens of the longest text; size in pixels of preprocessed images. 0 for a closed model. */
ALIGN_API size_t align_embedding_dim(const align_model *model);
ALIGN_API int32_t align_max_length(const align_model *model);
ALIGN_API void align_image_size(const align_model *model, size_t *height, size_t *width);

/* Writes the embeddings of `n` texts, UTF-8 that ends with NUL: unit rows, n * dim floats. A text with more than
 * align_max_length tokens is truncated. */
ALIGN_API align_status align_embed_texts(align_model *model, const char *const *utf8, size_t n, float *out,
                                         size_t out_capacity);

/* An image in memory: 8 bits a channel, rows from top to bottom. */
typedef struct align_image {
    const uint8_t *data;
    size_t width, height;
    size_t stride;    /* bytes from one row to the next; 0: rows without padding */
    int32_t channels; /* 1 grey, 3 RGB, 4 RGBA */
} align_image;

/* Writes the embeddings of `n` images: unit rows, n * dim floats. */
ALIGN_API align_status align_embed_images(align_model *model, const align_image *images, size_t n, float *out,
                                          size_t out_capacity);

/* The content of a file. */
typedef struct align_bytes {
    const uint8_t *data;
    size_t size;
} align_bytes;

/* The same for the content of `n` image files: JPEG or PNG. They are turned upright by their EXIF orientation. */
ALIGN_API align_status align_embed_encoded(align_model *model, const align_bytes *files, size_t n, float *out,
                                           size_t out_capacity);

/* The same for `n` images that align_preprocess has prepared, one after another. */
ALIGN_API align_status align_embed_pixels(align_model *model, const uint8_t *pixels, size_t n, float *out,
                                          size_t out_capacity);

/* Writes the ids of a text, from [CLS] to [SEP], and their number to `*length`; with too small a capacity only that. */
ALIGN_API align_status align_tokenize(align_model *model, const char *utf8, int64_t *ids, size_t capacity,
                                      size_t *length);

/* Writes the pixels of an image as the graph takes them: height * width * 3 bytes, RGB, of align_image_size. */
ALIGN_API align_status align_preprocess(align_model *model, const align_image *image, uint8_t *pixels, size_t capacity);

/* Writes n * m logits: cosines of `n` image embeddings with `m` text embeddings, divided by the model's temperature. */
ALIGN_API align_status align_logits(align_model *model, const float *images, size_t n, const float *texts, size_t m,
                                    float *out, size_t out_capacity);

/* Of the last call of this thread that failed: its message, "" if there is none, valid until the next one fails; and
 * the position of the input that it is about, -1 if it is about none. */
ALIGN_API const char *align_last_error(void);
ALIGN_API int64_t align_last_error_index(void);

/* The release of this library, e.g. "0.1.0". */
ALIGN_API const char *align_version(void);

#ifdef __cplusplus
}
#endif

#endif
