/* Compares pictures with a network of two inputs: compare MODEL
 * The answers are written into memory of the program, a batch at a time. */
#include <convship/convship.h>
#include <stdio.h>

enum { kSide = 8, kPixels = kSide * kSide, kMost = 3 };

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: compare MODEL\n");
    return CONVSHIP_USAGE;
  }
  /* Of three pairs the first are equal, the others less and less alike. */
  float left[kMost * kPixels], right[kMost * kPixels], alike[kMost];
  for (int pair = 0; pair < kMost; ++pair) {
    for (int i = 0; i < kPixels; ++i) {
      left[pair * kPixels + i] = (float)(i % kSide) / kSide;
      right[pair * kPixels + i] = (float)((i + pair * i / kSide) % kSide) / kSide;
    }
  }
  convship_model* model = NULL;
  convship_status status = convship_model_load(argv[1], NULL, &model);
  for (int64_t batch = 1; status == CONVSHIP_OK && batch <= kMost; batch += 2) {
    const int64_t shape[] = {batch, 1, kSide, kSide};
    const convship_tensor inputs[] = {
        {sizeof inputs[0], "left", left, CONVSHIP_FLOAT32, 4, shape, NULL},
        {sizeof inputs[0], "right", right, CONVSHIP_FLOAT32, 4, shape, NULL}};
    const convship_buffer output = {sizeof output, "output", alike, CONVSHIP_FLOAT32, 1,
                                    &batch,        NULL};
    status = convship_run_into(model, inputs, 2, &output, 1);
    for (int i = 0; status == CONVSHIP_OK && i < batch; ++i) printf("%.4f\n", alike[i]);
  }
  if (status != CONVSHIP_OK) fprintf(stderr, "compare: %s\n", convship_last_error());
  convship_model_free(model);
  return status;
}
