#include "serve/served_model.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace convship::serve {
namespace {

using nlohmann::ordered_json;

void require_described(const Model& model, const std::string& path) {
  if (!model.manifest().empty()) return;
  throw Error(ErrorCode::usage, path +
                                    ": a plain TorchScript file tells neither datatypes nor "
                                    "shapes, so clients cannot use it; export it with convship");
}

bool varies_first(const TensorInfo& info) {
  return info.shape && !info.shape->empty() && info.shape->front() == TensorInfo::kAnySize;
}

bool all_vary_first(const std::vector<TensorInfo>& infos) {
  return !infos.empty() && std::all_of(infos.begin(), infos.end(), &varies_first);
}

// `rows` rows for every input, random where the type has a middle.
std::vector<std::vector<float>> random_inputs(const std::vector<TensorInfo>& infos, int rows) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> inputs;
  for (const TensorInfo& info : infos) {
    std::int64_t count = rows;
    for (std::size_t i = 1; i < info.shape->size(); ++i) count *= (*info.shape)[i];
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& each : values) each = normal(random);
    inputs.push_back(std::move(values));
  }
  return inputs;
}

// Rows `begin` to `begin + count` of the inputs, which have `rows`.
std::vector<NamedView> views_of(const std::vector<TensorInfo>& infos,
                                const std::vector<std::vector<float>>& inputs,
                                int rows,
                                int begin,
                                int count) {
  std::vector<NamedView> views;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    auto shape = *infos[i].shape;
    shape[0] = count;
    const std::size_t row = inputs[i].size() / static_cast<std::size_t>(rows);
    const float* data = inputs[i].data() + static_cast<std::size_t>(begin) * row;
    views.push_back({infos[i].name, {data, DType::float32, shape, {}}});
  }
  return views;
}

ordered_json shapes(const std::vector<TensorInfo>& infos) {
  ordered_json list = ordered_json::array();
  for (const TensorInfo& info : infos) {
    ordered_json shape = ordered_json::array();
    for (const std::int64_t size : *info.shape) shape.push_back(size);  // any size is -1
    list.push_back({{"name", info.name}, {"datatype", datatype_of(*info.dtype)}, {"shape", shape}});
  }
  return list;
}

}  // namespace

ServedModel::ServedModel(const ServedFile& file, const convship::Options& load, int max_batch)
    : name_(file.name), path_(file.path.string()), model_(Model::load(file.path, load)) {
  require_described(model_, path_);
  const ordered_json manifest = ordered_json::parse(model_.manifest());
  const bool compiled = manifest.contains("compiled_for") && !manifest["compiled_for"].is_null();
  platform_ = compiled ? "convship_aotinductor" : "convship_torchscript";
  has_rows_ = all_vary_first(model_.inputs()) && all_vary_first(model_.outputs());
  why_alone_ = try_batches(max_batch);
}

// What runs wholly in our kernels computes each row by itself; LibTorch's layers
// may sum a batch in another order than a row. The trial is a second lock on
// that door, and warms the model up.
std::string ServedModel::try_batches(int max_batch) const {
  if (!has_rows_) return "the first size of some input or output does not vary";
  for (const TensorInfo& info : model_.inputs()) {
    if (*info.dtype != DType::float32) return "an input is not float32";
    if (std::count(info.shape->begin(), info.shape->end(), TensorInfo::kAnySize) > 1) {
      return "more sizes than the first vary";
    }
  }
  const auto inputs = random_inputs(model_.inputs(), max_batch);
  const auto views = [&](int begin, int count) {
    return views_of(model_.inputs(), inputs, max_batch, begin, count);
  };
  if (!model_.plan(views(0, 1)).whole) return "LibTorch runs a part of the network";
  if (max_batch == 1) return "--max-batch is 1";
  std::vector<std::vector<NamedTensor>> alone;
  for (int row = 0; row < max_batch; ++row) alone.push_back(model_.run(views(row, 1)));
  for (const int count : {2, std::min(3, max_batch), max_batch}) {
    const auto together = model_.run(views(0, count));
    for (std::size_t output = 0; output < together.size(); ++output) {
      const Tensor& batch = together[output].tensor;
      const auto* bytes = static_cast<const std::byte*>(batch.data());
      const std::size_t row_bytes = static_cast<std::size_t>(batch.numel()) *
                                    size_of(batch.dtype()) / static_cast<std::size_t>(count);
      for (int row = 0; row < count; ++row) {
        const Tensor& single = alone[static_cast<std::size_t>(row)][output].tensor;
        if (static_cast<std::size_t>(single.numel()) * size_of(single.dtype()) != row_bytes ||
            std::memcmp(bytes + static_cast<std::size_t>(row) * row_bytes, single.data(),
                        row_bytes) != 0) {
          return "a trial found a row whose answer depends on its neighbours";
        }
      }
    }
  }
  return "";
}

ordered_json ServedModel::metadata() const {
  return {{"name", name_},
          {"versions", {kVersion}},
          {"platform", platform_},
          {"inputs", shapes(model_.inputs())},
          {"outputs", shapes(model_.outputs())}};
}

ordered_json ServedModel::card() const {
  const ordered_json manifest = ordered_json::parse(model_.manifest());
  ordered_json card = metadata();
  card["labels"] = model_.labels();
  card["sha256"] = model_.file().sha256;
  card["bytes"] = model_.file().size;
  card["batches"] = batches();
  for (const char* key : {"convship", "torch", "task", "accuracy", "training"}) {
    if (manifest.contains(key)) card[key] = manifest[key];
  }
  return card;
}

std::string ServedModel::for_clients(std::string message) const {
  // A client needs no path of the server's disk.
  for (std::size_t at = message.find(path_); at != std::string::npos;
       at = message.find(path_, at + name_.size())) {
    message.replace(at, path_.size(), name_);
  }
  return message;
}

}  // namespace convship::serve
