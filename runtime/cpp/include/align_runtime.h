/* Placeholder until the API is complete: the status codes. */
#ifndef ALIGN_RUNTIME_H
#define ALIGN_RUNTIME_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a call returns: one code per class of align_runtime.errors in Python, with the same numbers for ever. */
typedef enum align_status {
    ALIGN_OK = 0,
    ALIGN_ERROR_CONFIGURATION = 1,       /* an option or argument is unknown, missing or out of range */
    ALIGN_ERROR_CHECKPOINT = 2,          /* never returned: the runtime reads no checkpoints */
    ALIGN_ERROR_INPUT = 3,               /* an image or text cannot be embedded */
    ALIGN_ERROR_BUNDLE = 4,              /* the bundle is missing, damaged or of another schema version */
    ALIGN_ERROR_BACKEND_UNAVAILABLE = 5, /* a library or device that was asked for is not available */
    ALIGN_ERROR_DEVICE = 6,              /* out of memory, or a device failed while it computed */
    ALIGN_ERROR_BUILD = 7,               /* never returned */
    ALIGN_ERROR_PRECISION = 8,           /* never returned */
    ALIGN_ERROR_PARITY = 9,              /* never returned */
    ALIGN_BUFFER_TOO_SMALL = 10,         /* the message says which capacity is needed */
    ALIGN_ERROR_INTERNAL = 11            /* a fault of this library */
} align_status;

#ifdef __cplusplus
}
#endif

#endif
