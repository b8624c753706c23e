/* The C interface of the native runtime, for C and for every language that can
 * call C. C11; nothing of LibTorch or C++ appears in it. Link libconvship.
 *
 *   convship_model* model = NULL;
 *   convship_predictions* found = NULL;
 *   const char* image = "cat.jpg";
 *   convship_prediction best = CONVSHIP_PREDICTION_INIT;
 *   if (convship_model_load("model.pt", NULL, &model) != CONVSHIP_OK ||
 *       convship_predict_files(model, &image, 1, 1, &found) != CONVSHIP_OK ||
 *       convship_predictions_get(found, 0, 0, &best) != CONVSHIP_OK) {
 *     fprintf(stderr, "%s\n", convship_last_error());
 *     return 1;
 *   }
 *   printf("%s %f\n", best.label, best.probability);
 *   convship_predictions_free(found);
 *   convship_model_free(model);
 *
 * Errors: functions return a status; convship_last_error() tells the rest. No
 * C++ exception ever leaves the library, and it neither prints nor exits. On
 * an error, what a pointer argument would have received is NULL or unchanged.
 *
 * Threads: one model may be used from many threads at once, and answers each as
 * it would answer a single one. Freeing is for whoever is the last to use it.
 * pthread_cancel acts after a call, not in it. A child that is forked between
 * calls may go on with its models, on one thread.
 *
 * Memory: what a function hands out as `convship_NAME*` is freed by
 * convship_NAME_free, which accepts NULL. Text and data inside of it live as
 * long as it does. What is passed in is copied or only read during the call.
 *
 * Structs grow at their end in later versions, hence `struct_size`: start from
 * the _INIT of the struct, in which every field has its default. Text is UTF-8,
 * paths are what the system takes, sizes are in elements unless they say bytes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "convship/export.h"

#ifdef __cplusplus
#define CONVSHIP_NOEXCEPT noexcept
extern "C" {
#else
#define CONVSHIP_NOEXCEPT
#endif

/* ---- Status ------------------------------------------------------------- */

typedef int32_t convship_status;
enum {
  CONVSHIP_OK = 0,
  CONVSHIP_DIFFERENCE = 1,  /* selftest: this machine's answers differ */
  CONVSHIP_USAGE = 2,       /* a wrong argument */
  CONVSHIP_BAD_MODEL = 3,   /* a damaged or wrong model file, a missing operator */
  CONVSHIP_BAD_IMAGE = 4,   /* an image that cannot be read or decoded */
  CONVSHIP_ENVIRONMENT = 5, /* no memory, a library that cannot be loaded */
  CONVSHIP_INTERNAL = 6     /* a defect of convship */
};

/* Why the last call of this thread that failed did so, in one line; "" before
 * the first. Valid until this thread's next failure. */
CONVSHIP_API const char* convship_last_error(void) CONVSHIP_NOEXCEPT;

/* ---- Versions and threads ------------------------------------------------ */

typedef struct convship_build {
  size_t struct_size;
  const char* convship; /* "0.1.0" */
  const char* torch;    /* the LibTorch that this was compiled against */
  const char* isa;      /* instruction set of the kernels in use */
} convship_build;
#define CONVSHIP_BUILD_INIT {sizeof(convship_build), NULL, NULL, NULL}

/* The texts live until this thread's next call of it. */
CONVSHIP_API convship_status convship_get_build(convship_build* build) CONVSHIP_NOEXCEPT;

/* Threads inside one call, for the whole process. The default is what CPU
 * affinity and the cgroup's quota allow. */
CONVSHIP_API convship_status convship_set_threads(int32_t threads) CONVSHIP_NOEXCEPT;
/* At least 1; 0 on an error. */
CONVSHIP_API int32_t convship_threads(void) CONVSHIP_NOEXCEPT;
CONVSHIP_API int32_t convship_default_threads(void) CONVSHIP_NOEXCEPT;

/* ---- Models -------------------------------------------------------------- */

typedef struct convship_model convship_model;

typedef int32_t convship_backend;
enum {
  CONVSHIP_BACKEND_CONVSHIP = 0, /* frozen and optimised at load */
  CONVSHIP_BACKEND_LIBTORCH = 1  /* exactly what torch.jit.load runs */
};

typedef int32_t convship_log_level;
enum {
  CONVSHIP_LOG_DEBUG = 0,  /* what the library does */
  CONVSHIP_LOG_INFO = 1,   /* what the model prints */
  CONVSHIP_LOG_WARNING = 2 /* LibTorch's warnings */
};

/* Called by the thread whose call it is about; must not call the model. */
typedef void (*convship_log)(void* user, convship_log_level level, const char* message);

typedef struct convship_options {
  size_t struct_size;
  /* Not 0: accept a TorchScript file that convship did not write. A model is a
   * program: load only files whose origin you trust. */
  int32_t allow_plain;
  convship_backend backend;
  /* 0: the default; -1: leave LibTorch's setting alone. */
  int32_t threads;
  /* Must be 0. */
  int32_t reserved;
  /* Shared libraries that register operators of the model with LibTorch. */
  const char* const* op_libraries;
  size_t op_library_count;
  /* NULL: no messages. `log_user` is handed to it. */
  convship_log log;
  void* log_user;
  /* Not NULL: PEM text of one or several Ed25519 public keys. A file that none of
   * them signed is refused, a plain one too. */
  const char* public_key;
} convship_options;
#define CONVSHIP_OPTIONS_INIT {sizeof(convship_options), 0, 0, 0, 0, NULL, 0, NULL, NULL, NULL}

/* `options` may be NULL. */
CONVSHIP_API convship_status convship_model_load(const char* path,
                                                 const convship_options* options,
                                                 convship_model** model) CONVSHIP_NOEXCEPT;
/* `bytes` is copied; `name` stands for the path in messages and may be NULL. */
CONVSHIP_API convship_status convship_model_load_memory(const void* bytes,
                                                        size_t size,
                                                        const char* name,
                                                        const convship_options* options,
                                                        convship_model** model) CONVSHIP_NOEXCEPT;
CONVSHIP_API void convship_model_free(convship_model* model) CONVSHIP_NOEXCEPT;

/* The manifest as JSON; "" for a plain TorchScript file. */
CONVSHIP_API convship_status convship_model_manifest(const convship_model* model,
                                                     const char** json) CONVSHIP_NOEXCEPT;
/* Class names; none for anything but a classifier. */
CONVSHIP_API convship_status convship_model_label_count(const convship_model* model,
                                                        size_t* count) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_model_label(const convship_model* model,
                                                  size_t index,
                                                  const char** label) CONVSHIP_NOEXCEPT;

/* ---- Tensors ------------------------------------------------------------- */

typedef int32_t convship_dtype;
enum {
  CONVSHIP_UNKNOWN_DTYPE = -1, /* in descriptions of plain TorchScript files */
  CONVSHIP_FLOAT32 = 0,
  CONVSHIP_FLOAT64 = 1,
  CONVSHIP_BFLOAT16 = 2,
  CONVSHIP_FLOAT16 = 3,
  CONVSHIP_INT64 = 4,
  CONVSHIP_INT32 = 5,
  CONVSHIP_INT16 = 6,
  CONVSHIP_INT8 = 7,
  CONVSHIP_UINT8 = 8,
  CONVSHIP_BOOL = 9
};

/* What the file says of an input or output. */
typedef struct convship_tensor_info {
  size_t struct_size;
  const char* name;
  convship_dtype dtype;
  int32_t rank;         /* -1: unknown */
  const int64_t* shape; /* -1: varies */
} convship_tensor_info;
#define CONVSHIP_TENSOR_INFO_INIT \
  {sizeof(convship_tensor_info), NULL, CONVSHIP_UNKNOWN_DTYPE, -1, NULL}

/* Inputs are in the order of the network's arguments. A plain TorchScript file
 * names its inputs only, and has no list of outputs. */
CONVSHIP_API convship_status convship_model_input_count(const convship_model* model,
                                                        size_t* count) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_model_input(const convship_model* model,
                                                  size_t index,
                                                  convship_tensor_info* info) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_model_output_count(const convship_model* model,
                                                         size_t* count) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_model_output(const convship_model* model,
                                                   size_t index,
                                                   convship_tensor_info* info) CONVSHIP_NOEXCEPT;

/* A tensor in somebody's memory. As an argument it is the caller's; as a result
 * it is contiguous, `strides` is NULL, and it lives as long as its owner. */
typedef struct convship_tensor {
  size_t struct_size;
  const char* name;
  const void* data;
  convship_dtype dtype;
  int32_t rank;
  const int64_t* shape;
  const int64_t* strides; /* in elements, none negative; NULL: contiguous */
} convship_tensor;
#define CONVSHIP_TENSOR_INIT \
  {sizeof(convship_tensor), NULL, NULL, CONVSHIP_UNKNOWN_DTYPE, 0, NULL, NULL}

/* Memory that convship_run_into writes to. */
typedef struct convship_buffer {
  size_t struct_size;
  const char* name;
  void* data;
  convship_dtype dtype;
  int32_t rank;
  const int64_t* shape;
  const int64_t* strides; /* as above */
} convship_buffer;
#define CONVSHIP_BUFFER_INIT \
  {sizeof(convship_buffer), NULL, NULL, CONVSHIP_UNKNOWN_DTYPE, 0, NULL, NULL}

typedef struct convship_outputs convship_outputs;

/* Runs any network: inputs by name (where there is one, `name` may be NULL) to
 * outputs by name; tuples, lists and dicts come out flattened. A batch may have
 * any size that the network takes; an empty one gives empty outputs. */
CONVSHIP_API convship_status convship_run(const convship_model* model,
                                          const convship_tensor* inputs,
                                          size_t input_count,
                                          convship_outputs** outputs) CONVSHIP_NOEXCEPT;
CONVSHIP_API size_t convship_outputs_count(const convship_outputs* outputs) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_outputs_get(const convship_outputs* outputs,
                                                  size_t index,
                                                  convship_tensor* tensor) CONVSHIP_NOEXCEPT;
CONVSHIP_API convship_status convship_outputs_find(const convship_outputs* outputs,
                                                   const char* name,
                                                   convship_tensor* tensor) CONVSHIP_NOEXCEPT;
CONVSHIP_API void convship_outputs_free(convship_outputs* outputs) CONVSHIP_NOEXCEPT;

/* As convship_run, into memory of the caller: those outputs that `outputs` names,
 * whose dtypes and shapes must be those of the answer. Nothing is written unless
 * all fit. */
CONVSHIP_API convship_status convship_run_into(const convship_model* model,
                                               const convship_tensor* inputs,
                                               size_t input_count,
                                               const convship_buffer* outputs,
                                               size_t output_count) CONVSHIP_NOEXCEPT;

/* Runs the network on zeros until calls have reached their speed, with `batch`
 * wherever the manifest lets the first size vary. */
CONVSHIP_API convship_status convship_model_warm_up(const convship_model* model,
                                                    int64_t batch) CONVSHIP_NOEXCEPT;

/* ---- Images to classes --------------------------------------------------- */

/* For files that hold preprocessing and labels. One image or many, each of its
 * own size; an image that fails fails the call, and the message names it. */

typedef struct convship_predictions convship_predictions;

/* JPEG or PNG. */
CONVSHIP_API convship_status convship_predict_files(const convship_model* model,
                                                    const char* const* paths,
                                                    size_t count,
                                                    int32_t top_k,
                                                    convship_predictions** predictions)
    CONVSHIP_NOEXCEPT;

typedef struct convship_bytes {
  size_t struct_size;
  const void* data;
  size_t size;
} convship_bytes;
#define CONVSHIP_BYTES_INIT {sizeof(convship_bytes), NULL, 0}

/* JPEG or PNG, as it stands in a file. */
CONVSHIP_API convship_status convship_predict_encoded(const convship_model* model,
                                                      const convship_bytes* images,
                                                      size_t count,
                                                      int32_t top_k,
                                                      convship_predictions** predictions)
    CONVSHIP_NOEXCEPT;

typedef int32_t convship_pixel_format;
enum {
  CONVSHIP_RGB = 0,
  CONVSHIP_BGR = 1,
  CONVSHIP_RGBA = 2, /* alpha is dropped, not blended */
  CONVSHIP_BGRA = 3,
  CONVSHIP_GRAY = 4
};

/* An image in the caller's memory, 8 bits a channel. */
typedef struct convship_pixels {
  size_t struct_size;
  const void* data; /* the top left pixel */
  int64_t height;
  int64_t width;
  convship_pixel_format format;
  int32_t channels;   /* 0, or what the format has: a check */
  int64_t row_stride; /* in bytes; 0: rows without padding; negative: bottom up */
} convship_pixels;
#define CONVSHIP_PIXELS_INIT {sizeof(convship_pixels), NULL, 0, 0, CONVSHIP_RGB, 0, 0}

CONVSHIP_API convship_status convship_predict_pixels(const convship_model* model,
                                                     const convship_pixels* images,
                                                     size_t count,
                                                     int32_t top_k,
                                                     convship_predictions** predictions)
    CONVSHIP_NOEXCEPT;

typedef struct convship_prediction {
  size_t struct_size;
  const char* label;
  int64_t index; /* of the class */
  float probability;
} convship_prediction;
#define CONVSHIP_PREDICTION_INIT {sizeof(convship_prediction), NULL, 0, 0.0f}

/* Images that were answered. */
CONVSHIP_API size_t convship_predictions_image_count(const convship_predictions* predictions)
    CONVSHIP_NOEXCEPT;
/* Classes of one image's answer: `top_k`, or all where there are fewer. */
CONVSHIP_API size_t convship_predictions_count(const convship_predictions* predictions,
                                               size_t image) CONVSHIP_NOEXCEPT;
/* `rank` 0 is the most probable class. */
CONVSHIP_API convship_status convship_predictions_get(const convship_predictions* predictions,
                                                      size_t image,
                                                      size_t rank,
                                                      convship_prediction* prediction)
    CONVSHIP_NOEXCEPT;
CONVSHIP_API void convship_predictions_free(convship_predictions* predictions) CONVSHIP_NOEXCEPT;

/* ---- Proof --------------------------------------------------------------- */

/* Runs the goldens in the file and compares every stage with its tolerance.
 * CONVSHIP_DIFFERENCE when one differs; convship_last_error() then names the
 * first. `checks` may be NULL and receives how many comparisons there were. */
CONVSHIP_API convship_status convship_model_selftest(const convship_model* model,
                                                     size_t* checks) CONVSHIP_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif
