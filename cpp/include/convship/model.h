// Load a shipped model and run it. No LibTorch type appears here, so a program
// that includes this header compiles in a second and links libconvship only.
//
//   auto model = convship::Model::load("model.pt");
//   for (const auto& p : model.predict_file("cat.jpg", /*top_k=*/3))
//     std::cout << p.label << ' ' << p.probability << '\n';
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "convship/error.h"
#include "convship/export.h"

namespace convship {

enum class DType { float32, float64, bfloat16, float16, int64, int32, int16, int8, uint8, boolean };

// The name that manifests use: "float32", "bfloat16", "bool", ...
CONVSHIP_API const char* name_of(DType dtype);
CONVSHIP_API std::size_t size_of(DType dtype);  // bytes per element

// Somebody else's tensor; `data` must outlive the call that reads it.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements; empty means contiguous
};

// A contiguous tensor that owns its memory.
class CONVSHIP_API Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, std::vector<std::int64_t> shape, std::shared_ptr<const void> data)
      : dtype_(dtype), shape_(std::move(shape)), data_(std::move(data)) {}

  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t numel() const;
  const void* data() const { return data_.get(); }
  const std::shared_ptr<const void>& storage() const { return data_; }
  TensorView view() const { return {data_.get(), dtype_, shape_, {}}; }
  // The elements as T; throws Error(usage) when T is not the dtype.
  template <typename T>
  std::span<const T> values() const;

 private:
  DType dtype_ = DType::float32;
  std::vector<std::int64_t> shape_;
  std::shared_ptr<const void> data_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

struct NamedView {
  std::string name;
  TensorView tensor;
};

// One class of a classifier's answer; probabilities of all classes sum to 1.
struct Prediction {
  std::string label;
  std::int64_t index = 0;
  float probability = 0;
};

// Every intermediate result of one image, for comparing implementations.
struct Stages {
  Tensor pixels;                     // uint8 [3, H, W] RGB
  Tensor preprocessed;               // float32 [1, C, S, S]
  std::vector<NamedTensor> outputs;  // of the network
  Tensor probabilities;              // float32 [1, classes]
};

// One comparison of selftest(): a golden's stage against this machine's answer.
struct Check {
  int golden = 0;
  std::string stage;     // "decode", "preprocess", "output NAME", "probabilities"
  double max_error = 0;  // largest absolute difference; infinity where shapes differ
  double tolerance = 0;
  bool passed = false;
};

enum class Backend {
  convship,  // frozen and optimised at load
  libtorch,  // exactly what torch.jit.load runs
};

struct Options {
  // Accept a TorchScript file that convship did not write. A model is a program:
  // load only files whose origin you trust.
  bool allow_plain = false;
  Backend backend = Backend::convship;
  // Threads inside one call, for the whole process: 0 sets the default,
  // min(CPU affinity, cgroup quota); keep_threads leaves LibTorch's setting alone.
  int threads = 0;
  static constexpr int keep_threads = -1;
};

// A loaded model. Movable; one model may be used from many threads at once.
// All functions throw Error and nothing else.
class CONVSHIP_API Model {
 public:
  static Model load(const std::filesystem::path& path, const Options& options = {});
  // `bytes` is copied; `name` stands for the path in messages.
  static Model load(std::span<const std::byte> bytes,
                    const Options& options = {},
                    const std::string& name = "model");

  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  // The manifest as JSON; empty for a plain TorchScript file.
  const std::string& manifest() const;
  // The class names; empty for anything but a classifier.
  const std::vector<std::string>& labels() const;

  // The `top_k` most probable classes, best first (fewer if there are fewer
  // classes). JPEG or PNG; needs a file that holds preprocessing and labels.
  std::vector<Prediction> predict_file(const std::filesystem::path& image, int top_k = 1) const;
  std::vector<Prediction> predict_encoded(std::span<const std::byte> image, int top_k = 1) const;

  // Runs the network: inputs by name (or, where there is one, any name) to
  // outputs by name. Tuples, lists and dicts come out flattened.
  std::vector<NamedTensor> run(const std::vector<NamedView>& inputs) const;

  Stages stages(std::span<const std::byte> image) const;
  // Runs the goldens in the file and compares every stage; throws Error(model)
  // where the file holds none.
  std::vector<Check> selftest() const;

 private:
  class Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// min(CPU affinity, cgroup CPU quota), at least 1.
CONVSHIP_API int default_threads();
// For the whole process; affects every model.
CONVSHIP_API void set_threads(int threads);
CONVSHIP_API int threads();

// Versions of this build and the instruction set in use, for `info`.
struct Build {
  std::string convship;  // "0.1.0"
  std::string torch;     // the version that was compiled against
  std::string isa;       // of the kernels, as chosen at run time
};
CONVSHIP_API Build build();

}  // namespace convship
