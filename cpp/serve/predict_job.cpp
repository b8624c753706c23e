// POST /predict and /v2/models/NAME/predict: an image in, classes out.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "serve/job.h"

namespace convship::serve {
namespace {

using nlohmann::ordered_json;

constexpr int kTopK = 5;  // where the query does not say

// "top_k=3" among what the query holds.
int top_k_of(const std::string& query) {
  std::string_view rest = query;
  int top_k = kTopK;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    constexpr std::string_view kName = "top_k=";
    if (!pair.starts_with(kName)) {
      throw Failure(400, "the query must be top_k=K, got '" + std::string(pair) + "'");
    }
    const std::string_view text = pair.substr(kName.size());
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), top_k);
    if (error != std::errc() || end != text.data() + text.size() || top_k < 1) {
      throw Failure(400, "top_k must be an integer of at least 1, got '" + std::string(text) + "'");
    }
  }
  return top_k;
}

class PredictJob final : public ModelJob {
 public:
  using ModelJob::ModelJob;

  // Throws Failure.
  void read();

 private:
  std::vector<Reply> answer(const Jobs& jobs) override;
  std::span<const std::byte> image() const {
    return std::as_bytes(std::span(request_.body.data(), request_.body.size()));
  }

  int top_k_ = kTopK;
};

void PredictJob::read() {
  top_k_ = top_k_of(request_.query);
  if (request_.content_type.starts_with("multipart/") ||
      request_.content_type.starts_with("application/json")) {
    throw Failure(415, "the body must be the bytes of a JPEG or PNG image, got " +
                           request_.content_type + "; send the file as it is");
  }
  if (request_.body.empty()) {
    throw Failure(400, "the body must be the bytes of a JPEG or PNG image, got none");
  }
  if (serving_.model.batches()) key = "predict " + serving_.model.name();
}

std::vector<Reply> PredictJob::answer(const Jobs& jobs) {
  std::vector<std::span<const std::byte>> images;
  int top_k = 1;
  for (const auto& each : jobs) {
    const auto& job = static_cast<const PredictJob&>(*each);
    images.push_back(job.image());
    top_k = std::max(top_k, job.top_k_);
  }
  const auto answers = serving_.model.model().predict_encoded(images, top_k);
  std::vector<Reply> replies;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const auto shown = std::min(
        answers[i].size(), static_cast<std::size_t>(static_cast<PredictJob&>(*jobs[i]).top_k_));
    ordered_json predictions = ordered_json::array();
    for (const Prediction& each : std::span(answers[i]).first(shown)) {
      predictions.push_back(
          {{"label", each.label}, {"index", each.index}, {"probability", each.probability}});
    }
    replies.push_back(json_reply({{"model_name", serving_.model.name()},
                                  {"model_version", kVersion},
                                  {"predictions", std::move(predictions)}}));
  }
  return replies;
}

}  // namespace

std::unique_ptr<Job> prepare_predict(const Serving& serving, Request request, Done done) {
  return prepared<PredictJob>(serving, std::move(request), std::move(done));
}

}  // namespace convship::serve
