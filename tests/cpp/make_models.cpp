// Writes the model files that other programs are tested with into a folder.
#include <ATen/Functions.h>

#include <cmath>
#include <fstream>

#include "convship/file.h"
#include "keys.h"
#include "shipped.h"

using namespace convship::testing;

namespace {

bool write(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.flush();
  return static_cast<bool>(out);
}

// LeNet-5 with weights of chance: two fused convolutions and three linear layers,
// which a plan serves as a whole.
torch::jit::Module lenet() {
  at::manual_seed(5);
  torch::jit::Module module("lenet");
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    const double fan_in = static_cast<double>(at::zeros(shape).numel() / shape[0]);
    module.register_parameter("w" + name, at::randn(shape).div(std::sqrt(fan_in)), false);
    module.register_parameter("b" + name, at::randn({shape[0]}).div(10), false);
  };
  add("1", {6, 1, 5, 5});
  add("2", {16, 6, 5, 5});
  add("3", {120, 256});
  add("4", {84, 120});
  add("5", {10, 84});
  module.define(R"(
def preprocess(self, images):
    return torch.adaptive_avg_pool2d(images / 255.0, [28, 28])[:, 0:1]

def forward(self, input):
    x = torch.max_pool2d(torch.relu(torch.conv2d(input, self.w1, self.b1)), [2, 2])
    x = torch.max_pool2d(torch.relu(torch.conv2d(x, self.w2, self.b2)), [2, 2])
    x = torch.flatten(x, 1)
    x = torch.relu(torch.linear(x, self.w3, self.b3))
    x = torch.relu(torch.linear(x, self.w4, self.b4))
    return torch.linear(x, self.w5, self.b5)
)");
  return module;
}

constexpr char kLeNetManifest[] =
    R"({"format": 1, "convship": "0", "torch": "0", "task": "classification",
  "inputs": [{"name": "input", "dtype": "float32", "shape": [null, 1, 28, 28]}],
  "outputs": [{"name": "logits", "dtype": "float32", "shape": [null, 10]}],
  "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "required_ops": [],
  "tolerances": {"outputs": {"logits": 0}, "probabilities": 0}, "goldens": 0})";

}  // namespace

int main(int, char** argv) {
  const std::string folder = argv[1];
  const auto signed_two = convship::sign(shipped(kTwo, kTwoManifest), TEST_PRIVATE_KEY);
  const bool written =
      write(folder + "/colours.pt", shipped(kColours, kColoursManifest)) &&
      write(folder + "/two.pt", shipped(kTwo, kTwoManifest)) &&
      write(folder + "/lenet.pt", bytes_of(with_digest(save(lenet(), kLeNetManifest)))) &&
      write(folder + "/signed.pt", signed_two) &&
      write(folder + "/plain.pt", bytes_of(save(kSum, "")));
  return written ? 0 : 1;
}
