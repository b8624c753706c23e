// Tensors to tensors.
#include "c_api_model.h"

using namespace convship;
using namespace convship::c_api;

struct convship_outputs : Marked<convship_outputs> {
  static constexpr std::uint64_t kMark = 0x6f75747075747320;
  explicit convship_outputs(std::vector<NamedTensor> found) : tensors(std::move(found)) {}
  std::vector<NamedTensor> tensors;
};

namespace {

constexpr std::int32_t kMaxRank = 64;  // LibTorch's

DType dtype_of(convship_dtype dtype, const std::string& subject) {
  if (dtype < CONVSHIP_FLOAT32 || dtype > CONVSHIP_BOOL) {
    fail_usage(subject + ": dtype must be one of CONVSHIP_FLOAT32 to CONVSHIP_BOOL, got " +
               std::to_string(dtype));
  }
  return static_cast<DType>(dtype);
}

// convship_tensor and convship_buffer to their C++ views.
template <typename View, typename Given>
View view_of(const Given& given, const std::string& subject) {
  if (given.rank < 0 || given.rank > kMaxRank || (given.shape == nullptr && given.rank > 0)) {
    fail_usage(subject + ": rank must be 0 to 64 with a shape of as many sizes, got " +
               std::to_string(given.rank));
  }
  View view{given.data, dtype_of(given.dtype, subject), {}, {}};
  if (given.rank > 0) view.shape.assign(given.shape, given.shape + given.rank);
  if (given.strides != nullptr) view.strides.assign(given.strides, given.strides + given.rank);
  return view;
}

std::string name_of(const char* name) { return name == nullptr ? "" : name; }

std::vector<NamedView> views_of(const convship_tensor* inputs, std::size_t count) {
  return read_elements<convship_tensor>(
      inputs, count, CONVSHIP_TENSOR_INIT, "convship_tensor",
      [](const convship_tensor& given, std::size_t) -> NamedView {
        const std::string name = name_of(given.name);
        return {name, view_of<TensorView>(given, "input '" + name + "'")};
      });
}

std::vector<NamedBuffer> buffers_of(const convship_buffer* outputs, std::size_t count) {
  return read_elements<convship_buffer>(
      outputs, count, CONVSHIP_BUFFER_INIT, "convship_buffer",
      [](const convship_buffer& given, std::size_t) -> NamedBuffer {
        const std::string name = name_of(given.name);
        return {name, view_of<MutableTensorView>(given, "output '" + name + "'")};
      });
}

void describe(const NamedTensor& named, convship_tensor* out) {
  const Tensor& tensor = named.tensor;
  write_struct(out,
               {sizeof(convship_tensor), named.name.c_str(), tensor.data(),
                static_cast<convship_dtype>(tensor.dtype()),
                static_cast<std::int32_t>(tensor.shape().size()), tensor.shape().data(), nullptr},
               "convship_tensor");
}

}  // namespace

convship_status convship_run(const convship_model* model,
                             const convship_tensor* inputs,
                             size_t input_count,
                             convship_outputs** outputs) noexcept {
  return guarded([&] {
    required(outputs, "outputs") = nullptr;
    const Model& loaded = model_of(model);
    *outputs = new convship_outputs(loaded.run(views_of(inputs, input_count)));
  });
}

size_t convship_outputs_count(const convship_outputs* outputs) noexcept {
  return outputs != nullptr && outputs->is_marked() ? outputs->tensors.size() : 0;
}

convship_status convship_outputs_get(const convship_outputs* outputs,
                                     size_t index,
                                     convship_tensor* tensor) noexcept {
  return guarded([&] {
    const auto& tensors = checked(outputs, "outputs").tensors;
    if (index >= tensors.size()) {
      fail_usage("index must be below " + std::to_string(tensors.size()) + ", got " +
                 std::to_string(index));
    }
    describe(tensors[index], tensor);
  });
}

convship_status convship_outputs_find(const convship_outputs* outputs,
                                      const char* name,
                                      convship_tensor* tensor) noexcept {
  return guarded([&] {
    std::string known;
    required(name, "name");
    for (const NamedTensor& each : checked(outputs, "outputs").tensors) {
      if (each.name == name) return describe(each, tensor);
      known += (known.empty() ? "" : ", ") + each.name;
    }
    fail_usage("the network's outputs are " + known + "; got '" + name + "'");
  });
}

void convship_outputs_free(convship_outputs* outputs) noexcept { free_handle(outputs); }

convship_status convship_run_into(const convship_model* model,
                                  const convship_tensor* inputs,
                                  size_t input_count,
                                  const convship_buffer* outputs,
                                  size_t output_count) noexcept {
  return guarded([&] {
    model_of(model).run_into(views_of(inputs, input_count), buffers_of(outputs, output_count));
  });
}
