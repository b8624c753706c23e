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
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "convship/error.h"
#include "convship/export.h"

namespace convship {

enum class DType { float32, float64, bfloat16, float16, int64, int32, int16, int8, uint8, boolean };

// The name that manifests use: "float32", "bfloat16", "bool", ...
CONVSHIP_API const char* name_of(DType dtype);
CONVSHIP_API std::optional<DType> dtype_named(std::string_view name);  // and back
CONVSHIP_API std::size_t size_of(DType dtype);                         // bytes per element

// Somebody else's tensor; `data` must outlive the call that reads it.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements; empty means contiguous
};

// Memory of the caller that a call writes to.
struct MutableTensorView {
  void* data = nullptr;
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

struct NamedBuffer {
  std::string name;
  MutableTensorView tensor;
};

// What the file says of an input or output. A plain TorchScript file names its
// inputs and says nothing else.
struct TensorInfo {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<std::int64_t>> shape;  // kAnySize where it varies
  static constexpr std::int64_t kAnySize = -1;
};

// Which file a model came from: of the very bytes that were loaded, whatever the
// path holds by now.
struct ModelFile {
  std::string sha256;      // 64 lower-case hexadecimal digits, as sha256sum prints them
  std::uint64_t size = 0;  // in bytes
};

// How bytes make a pixel. Alpha is dropped, not blended.
enum class PixelFormat { rgb, bgr, rgba, bgra, gray };
CONVSHIP_API int channels_of(PixelFormat format);

// An image in somebody else's memory, 8 bits a channel; `data` points at the
// top left pixel and must outlive the call that reads it.
struct PixelView {
  const std::uint8_t* data = nullptr;
  std::int64_t height = 0;
  std::int64_t width = 0;
  PixelFormat format = PixelFormat::rgb;
  std::ptrdiff_t row_stride = 0;  // in bytes; 0: rows without padding; negative: bottom up
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
  convship,  // frozen and optimised at load; of a .pt2 file, weights packed once
  libtorch,  // exactly what torch.jit.load or AOTInductor's own loader runs
};

enum class LogLevel {
  debug,    // what the library does, stage by stage
  info,     // what the model prints
  warning,  // LibTorch's warnings, and what will be slow or wrong
};

// Called by the thread whose call it is about, so from several threads at once
// where several use a model. Must not call the model.
using Log = std::function<void(LogLevel level, std::string_view message)>;

struct Options {
  // Accept a TorchScript file that convship did not write. A model is a program:
  // load only files whose origin you trust.
  bool allow_plain = false;
  Backend backend = Backend::convship;
  // Threads inside one call, for the whole process: 0 sets the default,
  // min(CPU affinity, cgroup quota); keep_threads leaves LibTorch's setting alone.
  int threads = 0;
  static constexpr int keep_threads = -1;
  // Shared libraries that register the operators of the model with LibTorch
  // (TORCH_LIBRARY). Loaded for good, and for the whole process.
  std::vector<std::filesystem::path> op_libraries;
  // Not empty: PEM text of one or several Ed25519 public keys. A file that none of
  // them signed is refused, a plain one too.
  std::string public_key;
  // Messages of load and of every call of this model; without one there are none.
  Log log;
};

// What one step of load took.
struct LoadStage {
  std::string name;
  double milliseconds = 0;
};

// One step that our own kernels take for a network, and how long it took: the
// median of some calls.
struct PlanStep {
  std::string name;
  double milliseconds = 0;
};

struct PlanReport {
  bool whole = false;  // LibTorch takes no part in forward
  std::vector<PlanStep> steps;
  // Operators that LibTorch runs, and how many of each.
  std::vector<std::pair<std::string, int>> left_to_libtorch;
};

// A loaded model. Movable; one model may be used from many threads at once,
// and answers each as it would answer a single one. All functions throw Error
// and nothing else.
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

  // ---- What the file says

  const ModelFile& file() const;
  // The manifest as JSON; empty for a plain TorchScript file.
  const std::string& manifest() const;
  // The class names; empty for anything but a classifier.
  const std::vector<std::string>& labels() const;
  // In the order of the network's arguments.
  const std::vector<TensorInfo>& inputs() const;
  // Empty for a plain TorchScript file: only its answers have names.
  const std::vector<TensorInfo>& outputs() const;

  // ---- Images to classes: for files that hold preprocessing and labels

  // The `top_k` most probable classes, best first (fewer if there are fewer
  // classes). Files and encoded bytes are JPEG or PNG.
  std::vector<Prediction> predict_file(const std::filesystem::path& image, int top_k = 1) const;
  std::vector<Prediction> predict_encoded(std::span<const std::byte> image, int top_k = 1) const;
  std::vector<Prediction> predict_pixels(const PixelView& image, int top_k = 1) const;

  // Many images, each of its own size, an answer for each; faster than one at a
  // time, as the network gets them in batches. (LibTorch's own layers may sum a
  // batch in another order, which moves the last digits of a probability.) An
  // image that fails fails the call; the message names it.
  std::vector<std::vector<Prediction>> predict_files(std::span<const std::filesystem::path> images,
                                                     int top_k = 1) const;
  std::vector<std::vector<Prediction>> predict_encoded(
      std::span<const std::span<const std::byte>> images, int top_k = 1) const;
  std::vector<std::vector<Prediction>> predict_pixels(std::span<const PixelView> images,
                                                      int top_k = 1) const;

  // ---- Tensors to tensors: for every network

  // Inputs by name (or, where there is one, any name) to outputs by name.
  // Tuples, lists and dicts come out flattened. The inputs are copied first. A
  // batch may have any size that the network takes, none included: an empty
  // batch gives empty outputs.
  std::vector<NamedTensor> run(const std::vector<NamedView>& inputs) const;
  // As run, into memory of the caller: those outputs that `outputs` names, whose
  // dtypes and shapes must be those of the answer. Nothing is written unless all fit.
  void run_into(const std::vector<NamedView>& inputs,
                const std::vector<NamedBuffer>& outputs) const;
  // Runs the network on zeros until calls have reached their speed, with `batch`
  // wherever the manifest lets the first size vary. For networks whose manifest
  // tells all other sizes; throws Error(usage) for others: run() those.
  void warm_up(std::int64_t batch = 1) const;
  // What runs where for these inputs; calls the network some times.
  PlanReport plan(const std::vector<NamedView>& inputs) const;

  // ---- Proofs and figures

  Stages stages(std::span<const std::byte> image) const;
  // Runs the goldens in the file and compares every stage; throws Error(model)
  // where the file holds none.
  std::vector<Check> selftest() const;
  // What load did, in order, and how long it took.
  const std::vector<LoadStage>& load_stages() const;

 private:
  class Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What scheduler and container allow this process.
struct CpuLimits {
  int affinity = 1;
  std::optional<double> quota;  // CPUs, of the cgroup; absent without a limit
};
CONVSHIP_API CpuLimits cpu_limits();
// min(CPU affinity, cgroup CPU quota rounded up), at least 1.
CONVSHIP_API int default_threads();
// For the whole process; affects every model. Forked children stay at one thread.
CONVSHIP_API void set_threads(int threads);
CONVSHIP_API int threads();

// Versions of this build and what it meets in this process, for `info` and `doctor`.
struct Build {
  std::string convship;            // "0.1.0"
  std::string torch;               // the version that was compiled against
  std::string torch_loaded;        // the one in this process
  std::string torch_problem;       // why the two do not fit; empty when they do
  std::string isa;                 // of the kernels, as chosen at run time
  std::vector<std::string> isas;   // what this build and this CPU have in common, best first
  std::string compiler;            // "gcc 12.2.0"
  bool flushes_denormals = false;  // the calling thread takes tiny numbers for zero
};
CONVSHIP_API Build build();

}  // namespace convship
