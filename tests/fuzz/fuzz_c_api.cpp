// Sequences of calls of the C interface, right and wrong ones, on a pool of handles:
// the input is the program. A stub stands where the network would be, so whatever a
// sanitizer finds is ours. Handles are valid or null, as the header asks for.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>

#include "convship/convship.h"
#include "shipped.h"
#include "stub_backend.h"

using namespace convship::testing;

namespace {

constexpr std::size_t kHandles = 3;

void require(bool holds) {
  if (!holds) std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}
  bool ended() const { return data_ == end_; }
  unsigned byte() { return ended() ? 0 : *data_++; }
  bool bit() { return byte() % 2 == 1; }
  // 0 to 4, now and then one that cannot be.
  std::int64_t size() {
    constexpr std::int64_t kExtremes[] = {-1, INT64_MAX, INT64_MIN, INT64_MIN + 1};
    const unsigned value = byte();
    return value < 252 ? value % 5 : kExtremes[value - 252];
  }
  std::vector<std::uint8_t> rest(std::size_t most) {
    const auto count = std::min(most, static_cast<std::size_t>(end_ - data_));
    const std::vector<std::uint8_t> bytes(data_, data_ + count);
    data_ += count;
    return bytes;
  }

 private:
  const std::uint8_t* data_;
  const std::uint8_t* end_;
};

// Every status is one of the header's, and a failure says why in one line.
bool succeeded(convship_status status) {
  require(status >= CONVSHIP_OK && status < CONVSHIP_INTERNAL);
  const std::string_view reason = convship_last_error();
  require(reason.find('\n') == std::string_view::npos);
  if (status != CONVSHIP_OK) require(!reason.empty());
  return status == CONVSHIP_OK;
}

// A tensor of which any field may be wrong, but not so that no callee could tell:
// its memory holds the largest shape and the largest strides that can be.
struct RandomTensor {
  static constexpr std::size_t kMostBytes = 4 * 4 * 4 * 4 * 4 * sizeof(double);

  explicit RandomTensor(Input& in) {
    static constexpr const char* kNames[] = {"x", "y", "input", "sum", "logits", "", nullptr};
    name = kNames[in.byte() % std::size(kNames)];
    dtype = static_cast<convship_dtype>(in.byte() % 12) - 1;
    rank = static_cast<std::int32_t>(in.byte() % 6);
    if (in.byte() == 7) rank -= 6;
    for (auto& size : shape) size = in.size();
    has_strides = in.bit();
    for (auto& stride : strides) stride = has_strides ? in.byte() % 4 : 0;
    no_shape = in.byte() == 9;
    no_data = in.byte() == 9;
    memory.resize(kMostBytes);
    // A size of 2^63 - 1 is a wrong one where elements have several bytes, not where
    // they have one or all lie at the same place.
    if (std::find(shape.begin(), shape.end(), INT64_MAX) != shape.end()) {
      dtype = CONVSHIP_FLOAT64;
      has_strides = false;
    }
  }
  template <typename T>
  T view() {
    return {sizeof(T),
            name,
            no_data ? nullptr : memory.data(),
            dtype,
            rank,
            no_shape ? nullptr : shape.data(),
            has_strides ? strides.data() : nullptr};
  }

  const char* name;
  convship_dtype dtype;
  std::int32_t rank;
  std::array<std::int64_t, 8> shape{}, strides{};
  bool has_strides, no_shape, no_data;
  std::vector<unsigned char> memory;
};

class Machine {
 public:
  explicit Machine(Input& in) : in_(in) {}
  ~Machine() {
    fail_at(Step::none);
    for (auto* each : models_) convship_model_free(each);
    for (auto* each : outputs_) convship_outputs_free(each);
    for (auto* each : predictions_) convship_predictions_free(each);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void step() {
    using Call = void (Machine::*)();
    static constexpr Call kCalls[] = {
        &Machine::load,    &Machine::free_one,         &Machine::describe,     &Machine::run,
        &Machine::run,     &Machine::run_into,         &Machine::read_outputs, &Machine::pixels,
        &Machine::encoded, &Machine::read_predictions, &Machine::rest,         &Machine::fail};
    (this->*kCalls[in_.byte() % std::size(kCalls)])();
  }

 private:
  // A fresh place for a handle; what was there is freed.
  template <typename Handle, typename Free>
  Handle*& place(std::array<Handle*, kHandles>& pool, Free free) {
    Handle*& handle = pool[in_.byte() % kHandles];
    free(handle);
    return handle = nullptr;
  }
  convship_model* model() { return models_[in_.byte() % kHandles]; }

  void load() {
    static const std::vector<std::byte> kFiles[] = {
        shipped(kSum), shipped(kColours, kColoursManifest), shipped(kTwo, kTwoManifest),
        bytes_of(save(kSum, ""))};
    std::vector<std::byte> bytes = kFiles[in_.byte() % std::size(kFiles)];
    if (in_.byte() % 4 == 0)
      bytes.resize(bytes.size() - std::min<std::size_t>(bytes.size(), in_.byte()));
    convship_options options = CONVSHIP_OPTIONS_INIT;
    options.allow_plain = in_.bit();
    options.backend = in_.byte() == 5 ? 7 : static_cast<convship_backend>(in_.byte() % 2);
    options.threads = static_cast<std::int32_t>(in_.byte() % 4) - 1;
    if (in_.byte() == 5) options.public_key = "no key";
    // A statement each: arguments are evaluated in an order of the compiler's.
    const char* name = in_.bit() ? "name" : nullptr;
    const convship_options* given = in_.bit() ? &options : nullptr;
    convship_model*& handle = place(models_, convship_model_free);
    const bool loaded =
        succeeded(convship_model_load_memory(bytes.data(), bytes.size(), name, given, &handle));
    require(loaded == (handle != nullptr));
  }

  void free_one() {
    switch (in_.byte() % 3) {
      case 0:
        place(models_, convship_model_free);
        break;
      case 1:
        place(outputs_, convship_outputs_free);
        break;
      default:
        place(predictions_, convship_predictions_free);
    }
  }

  void describe() {
    const convship_model* model = this->model();
    const char* text = nullptr;
    if (succeeded(convship_model_manifest(model, &text))) require(text != nullptr);
    std::size_t count = 0;
    if (succeeded(convship_model_label_count(model, &count))) {
      const std::size_t index = in_.byte() % 5;
      require(succeeded(convship_model_label(model, index, &text)) == (index < count));
    }
    convship_tensor_info info = CONVSHIP_TENSOR_INFO_INIT;
    if (in_.byte() == 3) info.struct_size = in_.byte();
    if (succeeded(convship_model_input_count(model, &count))) {
      succeeded(convship_model_input(model, in_.byte() % 5, &info));
    }
    if (succeeded(convship_model_output_count(model, &count))) {
      succeeded(convship_model_output(model, in_.byte() % 5, &info));
    }
  }

  std::vector<RandomTensor> tensors() {
    std::vector<RandomTensor> list;
    for (unsigned i = in_.byte() % 4; i > 0; --i) list.emplace_back(in_);
    return list;
  }

  // What the general model takes: most random tensors fit nothing.
  RandomTensor fitting() {
    RandomTensor tensor(in_);
    tensor.name = "x";
    tensor.dtype = CONVSHIP_FLOAT32;
    tensor.rank = 1;
    tensor.shape[0] = 2;
    tensor.strides[0] = in_.byte() % 4;
    tensor.no_data = tensor.no_shape = false;
    return tensor;
  }

  std::vector<RandomTensor> inputs() {
    if (!in_.bit()) return tensors();
    std::vector<RandomTensor> list;
    list.push_back(fitting());
    return list;
  }

  template <typename T>
  static std::vector<T> views(std::vector<RandomTensor>& tensors) {
    std::vector<T> list;
    for (RandomTensor& tensor : tensors) list.push_back(tensor.view<T>());
    return list;
  }

  void run() {
    auto memory = inputs();
    const auto list = views<convship_tensor>(memory);
    convship_outputs*& handle = place(outputs_, convship_outputs_free);
    const bool ran = succeeded(convship_run(model(), list.data(), list.size(), &handle));
    require(ran == (handle != nullptr));
  }

  void run_into() {
    auto memory = inputs(), targets = tensors();
    const auto list = views<convship_tensor>(memory);
    const auto buffers = views<convship_buffer>(targets);
    const auto before = targets;
    if (succeeded(
            convship_run_into(model(), list.data(), list.size(), buffers.data(), buffers.size())))
      return;
    for (std::size_t i = 0; i < targets.size(); ++i) require(targets[i].memory == before[i].memory);
  }

  void read_outputs() {
    const convship_outputs* outputs = outputs_[in_.byte() % kHandles];
    const std::size_t count = convship_outputs_count(outputs), index = in_.byte() % 4;
    convship_tensor tensor = CONVSHIP_TENSOR_INIT;
    require(succeeded(convship_outputs_get(outputs, index, &tensor)) == (index < count));
    if (index >= count) return;
    std::int64_t elements = 1;
    for (std::int32_t i = 0; i < tensor.rank; ++i) elements *= tensor.shape[i];
    volatile unsigned char sum = 0;
    for (std::int64_t i = 0; i < elements; ++i) {
      sum = static_cast<unsigned char>(sum + static_cast<const unsigned char*>(tensor.data)[i]);
    }
    convship_tensor same = CONVSHIP_TENSOR_INIT;
    require(succeeded(convship_outputs_find(outputs, tensor.name, &same)));
    require(same.data == tensor.data);
    require(!succeeded(convship_outputs_find(outputs, in_.bit() ? "none" : nullptr, &same)));
  }

  void pixels() {
    std::vector<unsigned char> memory(std::size_t{8} * 8 * 4 * 3);
    const auto size = [&] { return in_.byte() == 200 ? in_.size() : 1 + in_.byte() % 8; };
    convship_pixels image = CONVSHIP_PIXELS_INIT;
    image.height = size();
    image.width = size();
    image.format = static_cast<convship_pixel_format>(in_.byte() % 7) - 1;
    image.channels = static_cast<std::int32_t>(in_.byte() % 6);
    // Bottom up starts in the middle, so that both ways stay inside.
    image.row_stride = in_.bit() ? static_cast<std::int64_t>(in_.byte() % 65) - 32 : 0;
    const std::size_t middle = memory.size() / 2;
    image.data = in_.byte() == 9 ? nullptr : memory.data() + (image.row_stride < 0 ? middle : 0);
    const std::size_t count = in_.byte() == 9 ? 0 : 1;
    const auto top_k = static_cast<std::int32_t>(in_.size() % 8);
    convship_predictions*& handle = place(predictions_, convship_predictions_free);
    const bool done = succeeded(convship_predict_pixels(model(), &image, count, top_k, &handle));
    require(done == (handle != nullptr));
  }

  void encoded() {
    const auto bytes = in_.rest(in_.byte());
    convship_bytes image = CONVSHIP_BYTES_INIT;
    image.data = bytes.data();
    image.size = bytes.size();
    convship_predictions*& handle = place(predictions_, convship_predictions_free);
    const bool done = succeeded(convship_predict_encoded(model(), &image, 1, 2, &handle));
    require(done == (handle != nullptr));
  }

  void read_predictions() {
    const convship_predictions* predictions = predictions_[in_.byte() % kHandles];
    const std::size_t images = convship_predictions_image_count(predictions);
    const std::size_t image = in_.byte() % 3, rank = in_.byte() % 5;
    const std::size_t count = convship_predictions_count(predictions, image);
    require(image < images || count == 0);
    convship_prediction prediction = CONVSHIP_PREDICTION_INIT;
    const bool got = succeeded(convship_predictions_get(predictions, image, rank, &prediction));
    require(got == (rank < count));
    if (got) require(prediction.label != nullptr && std::strlen(prediction.label) > 0);
  }

  void rest() {
    std::size_t checks = 0;
    const convship_status status = convship_model_selftest(model(), &checks);
    if (status != CONVSHIP_DIFFERENCE) succeeded(status);
    succeeded(convship_model_warm_up(model(), in_.size() % 8));
    succeeded(convship_set_threads(static_cast<std::int32_t>(in_.byte() % 4) - 1));
    require(convship_threads() >= 1);
  }

  // What the stub throws at its next steps.
  void fail() {
    const auto step = static_cast<Step>(in_.byte() % 6);
    fail_at(step, static_cast<Thrown>(in_.byte() % 2));
  }

  Input& in_;
  std::array<convship_model*, kHandles> models_{};
  std::array<convship_outputs*, kHandles> outputs_{};
  std::array<convship_predictions*, kHandles> predictions_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  Machine machine(in);
  for (int calls = 0; calls < 200 && !in.ended(); ++calls) machine.step();
  return 0;
}
