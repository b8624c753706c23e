/* Classifies images: classify MODEL IMAGE... */
#include <convship/convship.h>
#include <stdio.h>

static int fail(convship_status status) {
  fprintf(stderr, "classify: %s\n", convship_last_error());
  return status;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: classify MODEL IMAGE...\n");
    return CONVSHIP_USAGE;
  }
  convship_model* model = NULL;
  convship_status status = convship_model_load(argv[1], NULL, &model);
  if (status != CONVSHIP_OK) return fail(status);

  const char* const* images = (const char* const*)argv + 2;
  convship_predictions* found = NULL;
  status = convship_predict_files(model, images, (size_t)argc - 2, 1, &found);
  if (status != CONVSHIP_OK) {
    convship_model_free(model);
    return fail(status);
  }
  for (size_t i = 0; i < convship_predictions_image_count(found); ++i) {
    convship_prediction best = CONVSHIP_PREDICTION_INIT;
    status = convship_predictions_get(found, i, 0, &best);
    if (status != CONVSHIP_OK) break;
    printf("%s: %s %.4f\n", images[i], best.label, best.probability);
  }
  convship_predictions_free(found);
  convship_model_free(model);
  return status;
}
