// Images to classes.
#include "c_api_model.h"

using namespace convship;
using namespace convship::c_api;

struct convship_predictions : Marked<convship_predictions> {
  static constexpr std::uint64_t kMark = 0x70726564696374;
  explicit convship_predictions(std::vector<std::vector<Prediction>> found)
      : images(std::move(found)) {}
  std::vector<std::vector<Prediction>> images;
};

namespace {

PixelView view_of(const convship_pixels& given, std::size_t index) {
  const std::string subject = "convship_pixels " + std::to_string(index) + ": ";
  if (given.format < CONVSHIP_RGB || given.format > CONVSHIP_GRAY) {
    fail_usage(subject + "format must be one of CONVSHIP_RGB to CONVSHIP_GRAY, got " +
               std::to_string(given.format));
  }
  const auto format = static_cast<PixelFormat>(given.format);
  if (given.channels != 0 && given.channels != channels_of(format)) {
    fail_usage(subject + "the format has " + std::to_string(channels_of(format)) +
               " channels, got " + std::to_string(given.channels));
  }
  return {static_cast<const std::uint8_t*>(given.data), given.height, given.width, format,
          static_cast<std::ptrdiff_t>(given.row_stride)};
}

std::span<const std::byte> bytes_of(const convship_bytes& given, std::size_t index) {
  if (given.data == nullptr && given.size > 0) {
    fail_usage("convship_bytes " + std::to_string(index) + ": data must not be NULL");
  }
  check_count(given.size, 1, "convship_bytes");
  return {static_cast<const std::byte*>(given.data), given.size};
}

}  // namespace

convship_status convship_predict_files(const convship_model* model,
                                       const char* const* paths,
                                       size_t count,
                                       int32_t top_k,
                                       convship_predictions** predictions) noexcept {
  return guarded([&] {
    required(predictions, "predictions") = nullptr;
    const Model& loaded = model_of(model);
    std::vector<std::filesystem::path> files;
    if (count > 0) required(paths, "paths");
    check_count(count, sizeof *paths, "paths");
    for (std::size_t i = 0; i < count; ++i) files.emplace_back(&required(paths[i], "paths[]"));
    *predictions = new convship_predictions(loaded.predict_files(files, top_k));
  });
}

convship_status convship_predict_encoded(const convship_model* model,
                                         const convship_bytes* images,
                                         size_t count,
                                         int32_t top_k,
                                         convship_predictions** predictions) noexcept {
  return guarded([&] {
    required(predictions, "predictions") = nullptr;
    const Model& loaded = model_of(model);
    const auto views = read_elements<convship_bytes>(images, count, CONVSHIP_BYTES_INIT,
                                                     "convship_bytes", bytes_of);
    *predictions = new convship_predictions(loaded.predict_encoded(views, top_k));
  });
}

convship_status convship_predict_pixels(const convship_model* model,
                                        const convship_pixels* images,
                                        size_t count,
                                        int32_t top_k,
                                        convship_predictions** predictions) noexcept {
  return guarded([&] {
    required(predictions, "predictions") = nullptr;
    const Model& loaded = model_of(model);
    const auto views = read_elements<convship_pixels>(images, count, CONVSHIP_PIXELS_INIT,
                                                      "convship_pixels", view_of);
    *predictions = new convship_predictions(loaded.predict_pixels(views, top_k));
  });
}

size_t convship_predictions_image_count(const convship_predictions* predictions) noexcept {
  return predictions != nullptr && predictions->is_marked() ? predictions->images.size() : 0;
}

size_t convship_predictions_count(const convship_predictions* predictions, size_t image) noexcept {
  return image < convship_predictions_image_count(predictions) ? predictions->images[image].size()
                                                               : 0;
}

convship_status convship_predictions_get(const convship_predictions* predictions,
                                         size_t image,
                                         size_t rank,
                                         convship_prediction* prediction) noexcept {
  return guarded([&] {
    checked(predictions, "predictions");
    if (rank >= convship_predictions_count(predictions, image)) {
      fail_usage("there is no image " + std::to_string(image) + " with a class of rank " +
                 std::to_string(rank));
    }
    const Prediction& found = predictions->images[image][rank];
    write_struct(prediction,
                 {sizeof(convship_prediction), found.label.c_str(), found.index, found.probability},
                 "convship_prediction");
  });
}

void convship_predictions_free(convship_predictions* predictions) noexcept {
  free_handle(predictions);
}
