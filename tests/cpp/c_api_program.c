/* The C interface as a C11 program uses it, and misuses it. Links libconvship
 * alone; argv[1] is the folder of make_models. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convship/convship.h"

/* Programs that were compiled with an earlier header rely on these places; what
 * is added goes behind them. */
#if UINTPTR_MAX == UINT64_MAX
_Static_assert(offsetof(convship_options, threads) == 16, "convship_options");
_Static_assert(offsetof(convship_options, op_libraries) == 24, "convship_options");
_Static_assert(offsetof(convship_options, log_user) == 48, "convship_options");
_Static_assert(offsetof(convship_options, public_key) == 56, "convship_options");
_Static_assert(offsetof(convship_build, isa) == 24, "convship_build");
_Static_assert(offsetof(convship_tensor_info, shape) == 24, "convship_tensor_info");
_Static_assert(offsetof(convship_tensor, rank) == 28, "convship_tensor");
_Static_assert(offsetof(convship_tensor, strides) == 40, "convship_tensor");
_Static_assert(offsetof(convship_buffer, strides) == 40, "convship_buffer");
_Static_assert(offsetof(convship_bytes, size) == 16, "convship_bytes");
_Static_assert(offsetof(convship_pixels, channels) == 36, "convship_pixels");
_Static_assert(offsetof(convship_pixels, row_stride) == 40, "convship_pixels");
_Static_assert(offsetof(convship_prediction, probability) == 24, "convship_prediction");
#endif

static int failures = 0;

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, \
              convship_last_error());                                                \
      ++failures;                                                                    \
    }                                                                                \
  } while (0)

/* The status, and that the error text says `part`. */
#define CHECK_FAILS(call, status, part)                   \
  do {                                                    \
    CHECK((call) == (status));                            \
    CHECK(strstr(convship_last_error(), (part)) != NULL); \
  } while (0)

static char path_buffer[4096];

static const char* in_folder(const char* folder, const char* name) {
  snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
  return path_buffer;
}

static convship_model* load(const char* folder, const char* name) {
  convship_model* model = NULL;
  CHECK(convship_model_load(in_folder(folder, name), NULL, &model) == CONVSHIP_OK);
  if (model == NULL) exit(1);
  return model;
}

/* ---- Use ----------------------------------------------------------------- */

static void test_versions_and_threads(void) {
  convship_build build = CONVSHIP_BUILD_INIT;
  CHECK(convship_get_build(&build) == CONVSHIP_OK);
  CHECK(strchr(build.convship, '.') != NULL && strchr(build.torch, '.') != NULL);
  CHECK(strlen(build.isa) > 0);
  CHECK(convship_default_threads() >= 1);
  CHECK(convship_set_threads(1) == CONVSHIP_OK && convship_threads() == 1);
  CHECK_FAILS(convship_set_threads(0), CONVSHIP_USAGE, "at least 1, got 0");
}

static void test_descriptions(const convship_model* two, const convship_model* colours) {
  size_t count = 0;
  const char* text = NULL;
  convship_tensor_info info = CONVSHIP_TENSOR_INFO_INIT;
  CHECK(convship_model_input_count(two, &count) == CONVSHIP_OK && count == 2);
  CHECK(convship_model_input(two, 1, &info) == CONVSHIP_OK);
  CHECK(strcmp(info.name, "y") == 0 && info.dtype == CONVSHIP_INT64 && info.rank == 2);
  CHECK(info.shape[0] == -1 && info.shape[1] == 3);
  CHECK(convship_model_output_count(two, &count) == CONVSHIP_OK && count == 2);
  CHECK(convship_model_output(two, 1, &info) == CONVSHIP_OK && info.dtype == CONVSHIP_BOOL);
  CHECK_FAILS(convship_model_output(two, 2, &info), CONVSHIP_USAGE, "below 2, got 2");
  CHECK(convship_model_label_count(two, &count) == CONVSHIP_OK && count == 0);
  CHECK(convship_model_label_count(colours, &count) == CONVSHIP_OK && count == 3);
  CHECK(convship_model_label(colours, 2, &text) == CONVSHIP_OK && strcmp(text, "blue") == 0);
  CHECK(convship_model_manifest(two, &text) == CONVSHIP_OK && text[0] == '{');
}

static void test_run(const convship_model* two) {
  /* x is every second column of a wider array: strides are honoured. */
  const float wide[] = {1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1};
  const int64_t numbers[] = {10, 0, 10, 0, 10, 0};
  const int64_t shape[] = {2, 3}, strides[] = {6, 2};
  convship_tensor inputs[2] = {CONVSHIP_TENSOR_INIT, CONVSHIP_TENSOR_INIT};
  inputs[0] = (convship_tensor){sizeof inputs[0], "x", wide, CONVSHIP_FLOAT32, 2, shape, strides};
  inputs[1] = (convship_tensor){sizeof inputs[0], "y", numbers, CONVSHIP_INT64, 2, shape, NULL};

  convship_outputs* outputs = NULL;
  convship_tensor sum = CONVSHIP_TENSOR_INIT, more = CONVSHIP_TENSOR_INIT;
  CHECK(convship_run(two, inputs, 2, &outputs) == CONVSHIP_OK);
  CHECK(convship_outputs_count(outputs) == 2);
  CHECK(convship_outputs_find(outputs, "sum", &sum) == CONVSHIP_OK);
  CHECK(convship_outputs_get(outputs, 1, &more) == CONVSHIP_OK);
  CHECK(sum.rank == 2 && sum.shape[0] == 2 && sum.shape[1] == 3 && sum.dtype == CONVSHIP_FLOAT32);
  const float expected[] = {11, 2, 13, 4, 15, 6};
  CHECK(memcmp(sum.data, expected, sizeof expected) == 0);
  CHECK(strcmp(more.name, "more") == 0 && ((const unsigned char*)more.data)[1] == 1);
  CHECK_FAILS(convship_outputs_find(outputs, "none", &sum), CONVSHIP_USAGE, "sum, more");
  convship_outputs_free(outputs);

  /* Into memory of ours, transposed: nothing is written unless all fits. */
  float memory[6] = {0};
  const int64_t columns[] = {1, 2};
  convship_buffer buffer = {sizeof buffer, "sum", memory, CONVSHIP_FLOAT32, 2, shape, columns};
  CHECK(convship_run_into(two, inputs, 2, &buffer, 1) == CONVSHIP_OK);
  const float transposed[] = {11, 4, 2, 15, 13, 6};
  CHECK(memcmp(memory, transposed, sizeof transposed) == 0);
  const int64_t other[] = {3, 2};
  buffer.shape = other;
  memory[0] = -1;
  CHECK_FAILS(convship_run_into(two, inputs, 2, &buffer, 1), CONVSHIP_USAGE,
              "is float32 [2, 3], got memory for float32 [3, 2]");
  CHECK(memory[0] == -1);
}

static void test_batches(const convship_model* two) {
  float x[30] = {0};
  int64_t y[30] = {0}, shape[] = {0, 3};
  for (int64_t batch = 0; batch <= 10; batch += 5) {
    shape[0] = batch;
    convship_tensor inputs[] = {
        {sizeof inputs[0], "x", batch == 0 ? NULL : x, CONVSHIP_FLOAT32, 2, shape, NULL},
        {sizeof inputs[0], "y", batch == 0 ? NULL : y, CONVSHIP_INT64, 2, shape, NULL}};
    convship_outputs* outputs = NULL;
    convship_tensor sum = CONVSHIP_TENSOR_INIT;
    CHECK(convship_run(two, inputs, 2, &outputs) == CONVSHIP_OK);
    CHECK(convship_outputs_find(outputs, "sum", &sum) == CONVSHIP_OK && sum.shape[0] == batch);
    convship_outputs_free(outputs);
  }
  CHECK(convship_model_warm_up(two, 4) == CONVSHIP_OK);
  CHECK_FAILS(convship_model_warm_up(two, 0), CONVSHIP_USAGE, "at least 1, got 0");
}

static void test_pixels(const convship_model* colours) {
  /* One blue pixel in every format, beside padding that must not be read as one. */
  const unsigned char rgb[] = {0, 0, 255, 9, 9}, bgr[] = {255, 0, 0}, rgba[] = {0, 0, 255, 7},
                      bgra[] = {255, 0, 0, 7}, gray[] = {200, 200, 200, 200};
  convship_pixels images[] = {{sizeof images[0], rgb, 1, 1, CONVSHIP_RGB, 3, 5},
                              {sizeof images[0], bgr, 1, 1, CONVSHIP_BGR, 3, 0},
                              {sizeof images[0], rgba, 1, 1, CONVSHIP_RGBA, 4, 0},
                              {sizeof images[0], bgra, 1, 1, CONVSHIP_BGRA, 0, 0},
                              {sizeof images[0], gray, 2, 2, CONVSHIP_GRAY, 1, 2}};
  convship_predictions* found = NULL;
  convship_prediction best = CONVSHIP_PREDICTION_INIT;
  CHECK(convship_predict_pixels(colours, images, 5, 2, &found) == CONVSHIP_OK);
  CHECK(convship_predictions_image_count(found) == 5);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(convship_predictions_count(found, i) == 2);
    CHECK(convship_predictions_get(found, i, 0, &best) == CONVSHIP_OK);
    CHECK(strcmp(best.label, "blue") == 0 && best.index == 2 && best.probability > 0.99f);
  }
  CHECK(convship_predictions_get(found, 4, 0, &best) == CONVSHIP_OK);
  CHECK(fabsf(best.probability - 1.0f / 3) < 1e-6f);
  CHECK_FAILS(convship_predictions_get(found, 5, 0, &best), CONVSHIP_USAGE, "no image 5");
  CHECK_FAILS(convship_predictions_get(found, 0, 2, &best), CONVSHIP_USAGE, "rank 2");
  convship_predictions_free(found);

  images[1].channels = 4;
  CHECK_FAILS(convship_predict_pixels(colours, images, 5, 1, &found), CONVSHIP_USAGE,
              "the format has 3 channels, got 4");
  CHECK(found == NULL);
  images[1].channels = 0;
  images[1].row_stride = 2;
  CHECK_FAILS(convship_predict_pixels(colours, images, 5, 1, &found), CONVSHIP_USAGE,
              "image 2: row_stride must be at least width * channels = 3");
  images[1].row_stride = 0;
  images[1].height = 0;
  CHECK_FAILS(convship_predict_pixels(colours, images, 5, 1, &found), CONVSHIP_USAGE, "height");
  images[1].height = 1;
  images[1].format = 17;
  CHECK_FAILS(convship_predict_pixels(colours, images, 5, 1, &found), CONVSHIP_USAGE, "got 17");

  /* No images: no answers, and no error. */
  CHECK(convship_predict_pixels(colours, NULL, 0, 1, &found) == CONVSHIP_OK);
  CHECK(convship_predictions_image_count(found) == 0);
  convship_predictions_free(found);
}

static void test_bottom_up_rows(const convship_model* colours) {
  /* Two rows, the upper one (last in memory) red; the lower one is left out. */
  const unsigned char rows[] = {0, 255, 0, 255, 0, 0};
  convship_pixels image = {sizeof image, rows + 3, 1, 1, CONVSHIP_RGB, 0, -3};
  convship_predictions* found = NULL;
  convship_prediction best = CONVSHIP_PREDICTION_INIT;
  CHECK(convship_predict_pixels(colours, &image, 1, 1, &found) == CONVSHIP_OK);
  CHECK(convship_predictions_get(found, 0, 0, &best) == CONVSHIP_OK);
  CHECK(strcmp(best.label, "red") == 0);
  convship_predictions_free(found);
  image.height = 2;
  CHECK(convship_predict_pixels(colours, &image, 1, 1, &found) == CONVSHIP_OK);
  CHECK(convship_predictions_get(found, 0, 0, &best) == CONVSHIP_OK);
  CHECK(fabsf(best.probability - 0.4983f) < 1e-3f); /* red and green alike */
  convship_predictions_free(found);
}

/* ---- Misuse -------------------------------------------------------------- */

static void test_null_and_wrong_handles(const convship_model* two, const convship_model* colours) {
  convship_model* model = NULL;
  convship_outputs* outputs = NULL;
  convship_predictions* found = NULL;
  convship_tensor tensor = CONVSHIP_TENSOR_INIT;
  size_t count = 0;
  CHECK_FAILS(convship_model_load(NULL, NULL, &model), CONVSHIP_USAGE, "path must not be NULL");
  CHECK_FAILS(convship_model_load("x", NULL, NULL), CONVSHIP_USAGE, "model must not be NULL");
  CHECK_FAILS(convship_model_load_memory(NULL, 3, NULL, NULL, &model), CONVSHIP_USAGE, "bytes");
  CHECK_FAILS(convship_model_load_memory(NULL, 0, NULL, NULL, &model), CONVSHIP_BAD_MODEL, "empty");
  CHECK_FAILS(convship_model_label_count(NULL, &count), CONVSHIP_USAGE, "model must not be NULL");
  CHECK_FAILS(convship_model_label_count(two, NULL), CONVSHIP_USAGE, "count must not be NULL");
  CHECK_FAILS(convship_run(NULL, NULL, 0, &outputs), CONVSHIP_USAGE, "model must not be NULL");
  CHECK_FAILS(convship_run(two, NULL, 2, &outputs), CONVSHIP_USAGE, "convship_tensor");
  CHECK_FAILS(convship_run(two, NULL, 0, NULL), CONVSHIP_USAGE, "outputs must not be NULL");
  CHECK_FAILS(convship_run(two, NULL, 0, &outputs), CONVSHIP_USAGE, "takes 2 inputs (x, y), got 0");
  CHECK_FAILS(convship_outputs_get(NULL, 0, &tensor), CONVSHIP_USAGE, "outputs must not be NULL");
  CHECK_FAILS(convship_predict_files(colours, NULL, 1, 1, &found), CONVSHIP_USAGE, "paths");
  CHECK_FAILS(convship_predict_pixels(two, NULL, 0, 1, &found), CONVSHIP_USAGE, "no preprocessing");
  CHECK(convship_outputs_count(NULL) == 0 && convship_predictions_count(NULL, 0) == 0);
  convship_model_free(NULL);
  convship_outputs_free(NULL);
  convship_predictions_free(NULL);

  CHECK(convship_predict_pixels(colours, NULL, 0, 1, &found) == CONVSHIP_OK);
  CHECK_FAILS(convship_model_label_count((const convship_model*)found, &count), CONVSHIP_USAGE,
              "model is no such handle");
  CHECK_FAILS(convship_outputs_get((const convship_outputs*)two, 0, &tensor), CONVSHIP_USAGE,
              "outputs is no such handle");
  convship_model_free((convship_model*)found); /* recognised and left alone */
  CHECK(convship_predictions_image_count(found) == 0);
  convship_predictions_free(found);
}

static void test_struct_sizes(const char* folder, const convship_model* two) {
  convship_model* model = NULL;
  convship_options options = CONVSHIP_OPTIONS_INIT;
  options.struct_size = 0;
  const char* plain = in_folder(folder, "plain.pt");
  CHECK_FAILS(convship_model_load(plain, &options, &model), CONVSHIP_USAGE,
              "struct_size must be sizeof(convship_options), got 0");
  /* An older caller knew allow_plain and backend only. */
  options.struct_size = offsetof(convship_options, threads);
  options.allow_plain = 1;
  options.threads = 12345678; /* beyond what it says it has */
  CHECK(convship_model_load(plain, &options, &model) == CONVSHIP_OK);
  CHECK(convship_threads() == convship_default_threads());
  convship_model_free(model);
  /* A newer caller, with a field that we lack: zero does not matter, a value does. */
  struct {
    convship_options known;
    uint64_t unknown;
  } newer = {CONVSHIP_OPTIONS_INIT, 0};
  newer.known.struct_size = sizeof newer;
  newer.known.allow_plain = 1;
  CHECK(convship_model_load(plain, &newer.known, &model) == CONVSHIP_OK);
  convship_model_free(model);
  newer.unknown = 1;
  CHECK_FAILS(convship_model_load(plain, &newer.known, &model), CONVSHIP_USAGE,
              "update the library");
  CHECK(model == NULL);

  struct {
    convship_tensor_info info;
    char beyond;
  } room = {CONVSHIP_TENSOR_INFO_INIT, 42};
  room.info.struct_size = offsetof(convship_tensor_info, dtype);
  room.info.dtype = 77;
  CHECK(convship_model_input(two, 0, &room.info) == CONVSHIP_OK);
  CHECK(strcmp(room.info.name, "x") == 0 && room.info.dtype == 77 && room.beyond == 42);
}

static void test_wrong_tensors(const convship_model* two) {
  const float x[3] = {0};
  const int64_t shape[] = {1, 3}, negative[] = {-1, 3};
  convship_outputs* outputs = NULL;
  convship_tensor inputs[] = {{sizeof inputs[0], "x", x, CONVSHIP_FLOAT32, 2, shape, NULL},
                              {sizeof inputs[0], "y", x, CONVSHIP_FLOAT32, 2, shape, NULL}};
  inputs[0].dtype = 99;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "dtype");
  inputs[0].dtype = CONVSHIP_FLOAT32;
  inputs[0].rank = 65;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "rank must be 0 to 64");
  inputs[0].rank = 2;
  inputs[0].shape = negative;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "must not be negative");
  inputs[0].shape = shape;
  inputs[0].strides = negative;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "strides");
  inputs[0].strides = NULL;
  inputs[0].data = NULL;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "null pointer");
  inputs[0].data = x;
  inputs[1].name = "z";
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "inputs are x, y");
  inputs[1].struct_size = 8;
  CHECK_FAILS(convship_run(two, inputs, 2, &outputs), CONVSHIP_USAGE, "one struct_size");
  CHECK(outputs == NULL);
}

static void keep(void* user, convship_log_level level, const char* message) {
  if (level == CONVSHIP_LOG_DEBUG) snprintf(user, 256, "%s", message);
}

static void test_options(const char* folder) {
  convship_model* model = NULL;
  convship_options options = CONVSHIP_OPTIONS_INIT;
  char logged[256] = "";
  const char* libraries[] = {"/nowhere/libacme.so"};
  const char* plain = in_folder(folder, "plain.pt");
  CHECK_FAILS(convship_model_load(plain, NULL, &model), CONVSHIP_BAD_MODEL, "allow_plain");
  options.allow_plain = 1;
  options.log = keep;
  options.log_user = logged;
  options.backend = CONVSHIP_BACKEND_LIBTORCH;
  options.threads = 2;
  CHECK(convship_model_load(plain, &options, &model) == CONVSHIP_OK);
  CHECK(strstr(logged, "plain.pt: loaded") != NULL);
  CHECK(convship_threads() == 2);
  convship_tensor_info info = CONVSHIP_TENSOR_INFO_INIT;
  CHECK(convship_model_input(model, 0, &info) == CONVSHIP_OK && info.rank == -1);
  CHECK_FAILS(convship_model_warm_up(model, 1), CONVSHIP_USAGE, "does not tell the size");
  CHECK_FAILS(convship_model_selftest(model, NULL), CONVSHIP_BAD_MODEL, "no goldens");
  convship_model_free(model);
  options.op_libraries = libraries;
  options.op_library_count = 1;
  CHECK_FAILS(convship_model_load(plain, &options, &model), CONVSHIP_ENVIRONMENT, "libacme.so");
  options.op_library_count = 0;
  options.backend = 7;
  CHECK_FAILS(convship_model_load(plain, &options, &model), CONVSHIP_USAGE, "got 7");
}

/* A public key's PEM text. */
static void read_text(const char* path, char* text, size_t size) {
  FILE* file = fopen(path, "rb");
  CHECK(file != NULL);
  text[file ? fread(text, 1, size - 1, file) : 0] = '\0';
  if (file) fclose(file);
}

static void test_public_key(const char* folder) {
  char key[1024], other[1024];
  read_text(in_folder(folder, "key.pem"), key, sizeof key);
  read_text(in_folder(folder, "other.pem"), other, sizeof other);
  convship_model* model = NULL;
  convship_options options = CONVSHIP_OPTIONS_INIT;
  options.allow_plain = 1;
  options.public_key = key;
  CHECK(convship_model_load(in_folder(folder, "signed.pt"), &options, &model) == CONVSHIP_OK);
  convship_model_free(model);
  CHECK_FAILS(convship_model_load(in_folder(folder, "two.pt"), &options, &model),
              CONVSHIP_BAD_MODEL, "not signed");
  CHECK_FAILS(convship_model_load(in_folder(folder, "plain.pt"), &options, &model),
              CONVSHIP_BAD_MODEL, "not signed");
  options.public_key = other;
  CHECK_FAILS(convship_model_load(in_folder(folder, "signed.pt"), &options, &model),
              CONVSHIP_BAD_MODEL, "not of the given public key");
  options.public_key = "";
  CHECK_FAILS(convship_model_load(in_folder(folder, "signed.pt"), &options, &model), CONVSHIP_USAGE,
              "must not be empty");
  options.public_key = "no key";
  CHECK_FAILS(convship_model_load(in_folder(folder, "signed.pt"), &options, &model), CONVSHIP_USAGE,
              "must be PEM text");
  /* A caller that is older than the field does not ask for signatures. */
  options.struct_size = offsetof(convship_options, public_key);
  CHECK(convship_model_load(in_folder(folder, "two.pt"), &options, &model) == CONVSHIP_OK);
  convship_model_free(model);
}

/* ---- Threads ------------------------------------------------------------- */

enum { kThreads = 8, kCalls = 300 };

struct worker {
  const convship_model* model;
  float x;
  float expected;
  int wrong;
};

static float sum_of(const convship_model* two, float value) {
  const float x[] = {value, value * 0.5f, value * 0.25f};
  const int64_t y[] = {1, 2, 3}, shape[] = {1, 3};
  float sum[3] = {0};
  const convship_tensor inputs[] = {{sizeof inputs[0], "x", x, CONVSHIP_FLOAT32, 2, shape, NULL},
                                    {sizeof inputs[0], "y", y, CONVSHIP_INT64, 2, shape, NULL}};
  const convship_buffer buffer = {sizeof buffer, "sum", sum, CONVSHIP_FLOAT32, 2, shape, NULL};
  if (convship_run_into(two, inputs, 2, &buffer, 1) != CONVSHIP_OK) return -1;
  return sum[0] + sum[1] + sum[2];
}

static void* work(void* argument) {
  struct worker* self = argument;
  char mine[64];
  snprintf(mine, sizeof mine, "at least 1, got %d", -(int)self->x);
  for (int i = 0; i < kCalls; ++i) {
    self->wrong += sum_of(self->model, self->x) != self->expected;
    /* Every thread sees its own error. */
    convship_model_warm_up(self->model, -(int)self->x);
    self->wrong += strstr(convship_last_error(), mine) == NULL;
  }
  return NULL;
}

static void test_threads(const convship_model* two) {
  pthread_t threads[kThreads];
  struct worker workers[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    const float x = (float)(i + 1);
    workers[i] = (struct worker){two, x, sum_of(two, x), 0};
  }
  for (int i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, work, &workers[i]);
  for (int i = 0; i < kThreads; ++i) {
    pthread_join(threads[i], NULL);
    CHECK(workers[i].wrong == 0);
  }
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  CHECK(strcmp(convship_last_error(), "") == 0);
  convship_model* two = load(argv[1], "two.pt");
  convship_model* colours = load(argv[1], "colours.pt");
  test_descriptions(two, colours);
  test_run(two);
  test_batches(two);
  test_pixels(colours);
  test_bottom_up_rows(colours);
  test_null_and_wrong_handles(two, colours);
  test_struct_sizes(argv[1], two);
  test_wrong_tensors(two);
  test_options(argv[1]);
  test_public_key(argv[1]);
  test_versions_and_threads();
  test_threads(two);
  convship_model_free(colours);
  convship_model_free(two);
  if (failures == 0) puts("c_api: all checks passed");
  return failures == 0 ? 0 : 1;
}
