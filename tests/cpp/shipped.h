// Model files made here: LibTorch writes them, no Python is needed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace torch::jit {
struct Module;
}

namespace convship::testing {

inline std::vector<std::byte> bytes_of(const std::string& text) {
  const auto span = std::as_bytes(std::span(text));
  return {span.begin(), span.end()};
}

inline constexpr char kManifest[] =
    R"({"format": 1, "convship": "0", "torch": "0", "task": "general",
  "inputs": [{"name": "x", "dtype": "float32", "shape": [2]}],
  "outputs": [{"name": "sum", "dtype": "float32", "shape": []}],
  "labels": [], "required_ops": [], "tolerances": {"outputs": {"sum": 0}, "probabilities": 0},
  "goldens": 0})";

inline constexpr char kSum[] = "def forward(self, x):\n    return x.sum()\n";

// Says which of the three colours an image has most of.
inline constexpr char kColours[] = R"(
def preprocess(self, images):
    return torch.adaptive_avg_pool2d(images / 255.0, [2, 2])

def forward(self, input):
    return input.mean([2, 3]) * 10.0
)";

inline constexpr char kColoursManifest[] =
    R"({"format": 1, "convship": "0", "torch": "0", "task": "classification",
  "inputs": [{"name": "input", "dtype": "float32", "shape": [null, 3, 2, 2]}],
  "outputs": [{"name": "logits", "dtype": "float32", "shape": [null, 3]}],
  "labels": ["red", "green", "blue"], "required_ops": [],
  "tolerances": {"outputs": {"logits": 0}, "probabilities": 0}, "goldens": 0})";

// Two inputs, outputs of two dtypes, any batch.
inline constexpr char kTwo[] =
    "def forward(self, x, y):\n    return {'sum': x + y, 'more': x > y}\n";

inline constexpr char kTwoManifest[] =
    R"({"format": 1, "convship": "0", "torch": "0", "task": "general",
  "inputs": [{"name": "x", "dtype": "float32", "shape": [null, 3]},
             {"name": "y", "dtype": "int64", "shape": [null, 3]}],
  "outputs": [{"name": "sum", "dtype": "float32", "shape": [null, 3]},
              {"name": "more", "dtype": "bool", "shape": [null, 3]}],
  "labels": [], "required_ops": [],
  "tolerances": {"outputs": {"sum": 0, "more": 0}, "probabilities": 0}, "goldens": 0})";

// A TorchScript file as torch.jit.save writes it.
std::string save(const torch::jit::Module& module, const std::string& manifest);
std::string save(const std::string& source, const std::string& manifest);

// An archive without comment, with its digest; as bundle.with_digest in Python.
std::string with_digest(std::string archive);

std::vector<std::byte> shipped(const std::string& source, const std::string& manifest = kManifest);

}  // namespace convship::testing
