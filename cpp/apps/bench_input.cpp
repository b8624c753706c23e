#include "bench_input.h"

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "npy.h"

namespace convship::apps {
namespace {

using nlohmann::json;
using Shape = std::vector<std::int64_t>;

// Reproducible values in [-1, 1): latency must not depend on a random seed.
Tensor filled(Shape shape) {
  const auto count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(count));
  std::uint32_t state = 1;
  for (float& value : *values) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' linear congruential generator
    value = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return {DType::float32, std::move(shape), {values, values->data()}};
}

// "1x28x28" is all, "28x28" leaves channels as they are, "28" is a square.
Shape parse_size(const std::string& text) {
  Shape sizes;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find('x', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (part.empty() || part.size() > 5 ||
        part.find_first_not_of("0123456789") != std::string::npos || std::stoi(part) < 1) {
      throw Error(ErrorCode::usage,
                  "--size must be pixels as 224, 240x320 or 3x240x320, got '" + text + "'");
    }
    sizes.push_back(std::stoi(part));
    begin = end + 1;
  }
  if (sizes.size() == 1) sizes.push_back(sizes[0]);
  if (sizes.size() > 3) {
    throw Error(ErrorCode::usage, "--size must be at most three numbers, got '" + text + "'");
  }
  return sizes;
}

Shape image_shape(std::int64_t batch, std::int64_t channels, const std::string& size) {
  Shape shape = parse_size(size);
  if (shape.size() == 2) shape.insert(shape.begin(), channels);
  shape.insert(shape.begin(), batch);
  return shape;
}

std::vector<NamedTensor> read(const std::vector<std::string>& files) {
  std::vector<NamedTensor> tensors;
  for (const std::string& file : files) {
    const std::size_t equals = file.find('=');
    if (equals == std::string::npos) {
      throw Error(ErrorCode::usage, "bench: inputs are NAME=FILE.npy, got '" + file + "'");
    }
    tensors.push_back({file.substr(0, equals), read_npy(file.substr(equals + 1))});
  }
  return tensors;
}

}  // namespace

std::vector<NamedTensor> BenchInput::make(const Model& model, const std::string& path) const {
  if (!files.empty()) return read(files);
  constexpr std::int64_t kColours = 3;
  if (model.manifest().empty()) {
    if (size.empty()) {
      throw Error(ErrorCode::usage, path +
                                        ": a plain TorchScript file does not say what it takes; "
                                        "give --size, as in --size 3x224x224");
    }
    return {{"input", filled(image_shape(batch, kColours, size))}};
  }
  const json inputs = json::parse(model.manifest()).at("inputs");
  std::vector<NamedTensor> tensors;
  for (const json& input : inputs) {
    if (input.at("dtype") != "float32") {
      throw Error(ErrorCode::usage, path + ": input '" + input.at("name").get<std::string>() +
                                        "' must be float32 to be filled, it is " +
                                        input.at("dtype").get<std::string>() +
                                        "; give --input NAME=FILE.npy");
    }
    Shape shape;
    for (const json& dim : input.at("shape")) {
      shape.push_back(dim.is_null() || shape.empty() ? batch : dim.get<std::int64_t>());
    }
    if (!size.empty()) shape = image_shape(batch, shape.size() == 4 ? shape[1] : kColours, size);
    tensors.push_back({input.at("name"), filled(std::move(shape))});
  }
  return tensors;
}

}  // namespace convship::apps
