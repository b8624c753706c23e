// Writes the model files that other programs are tested with into a folder.
#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <torch/csrc/jit/api/module.h>

#include <cmath>
#include <fstream>
#include <memory>

#include "convship/file.h"
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

// An Ed25519 key of this run alone.
class Key {
 public:
  std::string private_pem() const {
    return pem([&](BIO* out) {
      return PEM_write_bio_PrivateKey(out, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
  }
  std::string public_pem() const {
    return pem([&](BIO* out) { return PEM_write_bio_PUBKEY(out, key_.get()); });
  }

 private:
  template <typename Write>
  static std::string pem(const Write& write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), &BIO_free);
    if (write(out.get()) != 1) throw std::runtime_error("the key cannot be written");
    char* text = nullptr;
    const long size = BIO_get_mem_data(out.get(), &text);
    return {text, static_cast<std::size_t>(size)};
  }

  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_{
      EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), &EVP_PKEY_free};
};

}  // namespace

int main(int, char** argv) {
  const std::string folder = argv[1];
  const Key key, other;
  const auto signed_two = convship::sign(shipped(kTwo, kTwoManifest), key.private_pem());
  const bool written =
      write(folder + "/colours.pt", shipped(kColours, kColoursManifest)) &&
      write(folder + "/two.pt", shipped(kTwo, kTwoManifest)) &&
      write(folder + "/lenet.pt", bytes_of(with_digest(save(lenet(), kLeNetManifest)))) &&
      write(folder + "/signed.pt", signed_two) &&
      write(folder + "/key.pem", bytes_of(key.public_pem())) &&
      write(folder + "/other.pem", bytes_of(other.public_pem())) &&
      write(folder + "/plain.pt", bytes_of(save(kSum, "")));
  return written ? 0 : 1;
}
