#include "file_kind.h"

#include <caffe2/serialize/versions.h>
#include <torch/headeronly/version.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>

#include "printable.h"

namespace convship::runtime {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::size_t offset;
  std::string_view magic;
  std::string_view kind;
};

constexpr std::string_view kPickle =
    "this is a Python pickle (an old torch.save), not a model; load it in Python and run "
    "convship.export_model";

// First match wins, so longer and surer signatures come first.
constexpr std::array kSignatures = {
    Signature{0, "version https://git-lfs"sv,
              "this is a Git LFS pointer, not the file itself; run git lfs pull"},
    Signature{0, "\x89HDF\r\n"sv,
              "this is an HDF5 file (Keras weights?), not a model; convship runs networks of "
              "PyTorch"},
    Signature{4, "TFL3"sv, "this is a TensorFlow Lite file; run it with TensorFlow Lite"},
    Signature{4, "ET12"sv, "this is an ExecuTorch program (.pte); run it with ExecuTorch"},
    Signature{0, "GGUF"sv,
              "this is a GGUF file of a language model; convship runs networks of PyTorch"},
    Signature{0, "\x93NUMPY"sv, "this is a NumPy array (.npy), not a model"},
    Signature{0,
              "\x7f"
              "ELF"sv,
              "this is a program or shared library, not a model"},
    Signature{0, "\x1f\x8b"sv, "this is a gzip archive; unpack it first"},
    Signature{0, "\x89PNG"sv, "this is an image (PNG), not a model"},
    Signature{0, "\xff\xd8\xff"sv, "this is an image (JPEG), not a model"},
    Signature{257, "ustar"sv,
              "this is a tar archive; unpack it first, or load it in Python and run "
              "convship.export_model"},
    Signature{0, "<?xml"sv,
              "this is an XML file (OpenVINO's IR?); run it with OpenVINO, or export the network "
              "with convship"},
    Signature{0, "<!DOCTYPE"sv,
              "this is a web page, not a model; the download may have asked for a login"},
    Signature{0, "<html"sv,
              "this is a web page, not a model; the download may have asked for a login"},
    Signature{0, "\x80\x02"sv, kPickle},
    Signature{0, "\x80\x03"sv, kPickle},
    Signature{0, "\x80\x04"sv, kPickle},
    Signature{0, "\x80\x05"sv, kPickle},
};

bool has_at(std::span<const std::byte> bytes, std::size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() &&
         std::memcmp(bytes.data() + offset, magic.data(), magic.size()) == 0;
}

// 8 bytes of little-endian length, then a JSON header of that length.
bool looks_like_safetensors(std::span<const std::byte> bytes) {
  std::uint64_t length = 0;
  if (!has_at(bytes, 8, "{")) return false;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length < (std::uint64_t{1} << 32);
}

// Serialised protobuf of an ONNX model: field 1 (ir_version, a small number)
// and field 2 (producer_name) or 7 (graph) after it.
bool looks_like_onnx(std::span<const std::byte> bytes) {
  if (bytes.size() < 3 || bytes[0] != std::byte{8} || bytes[1] >= std::byte{32}) return false;
  return bytes[2] == std::byte{0x12} || bytes[2] == std::byte{0x3a};
}

std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
  return text;
}

}  // namespace

std::string describe_other_file(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "the file is empty";
  for (const Signature& signature : kSignatures) {
    if (has_at(bytes, signature.offset, signature.magic)) return std::string(signature.kind);
  }
  if (looks_like_safetensors(bytes)) {
    return "this looks like a safetensors file: weights without a network; load them into the "
           "module in Python and run convship.export_model";
  }
  if (looks_like_onnx(bytes)) {
    return "this looks like an ONNX file, not a TorchScript archive; run it with ONNX Runtime";
  }
  return "this is not a convship model (no ZIP archive)";
}

bool is_torchscript(const ArchiveContents& contents) {
  return contents.has("constants.pkl") && contents.has_folder("code/");
}

bool is_aotinductor(const ArchiveContents& contents) {
  return contents.has_folder("data/aotinductor/");
}

std::string describe_other_archive(const ArchiveContents& contents) {
  if (is_torchscript(contents)) return {};
  if (is_aotinductor(contents)) {
    return "this is a plain AOTInductor .pt2 package: native code without convship's manifest and "
           "digest, which is never loaded; export the network with convship.export_model and "
           "format='pt2'";
  }
  if (contents.has("archive_format") || contents.has_folder("models/")) {
    return "this is a torch.export .pt2 package, which this version does not run; export a .pt "
           "with convship.export_model";
  }
  if (contents.has("data.pkl")) {
    // A module's own dictionary; a state_dict has no such key.
    if (contents.text("data.pkl").find("_modules") != std::string::npos) {
      return "this is a pickled nn.Module (torch.save(model)), which only its own Python code can "
             "read; load it there and run convship.export_model";
    }
    return "this is a checkpoint or state_dict (weights without a network), not a model; make one "
           "with 'convship export RUN --out model.pt' or convship.export_model";
  }
  if (contents.has_folder("word/") || contents.has_folder("META-INF/")) {
    return "this is a document or a Java archive, not a model";
  }
  return "this is a ZIP archive but not a model";
}

std::string describe_unreadable_version(const ArchiveContents& contents) {
  const std::string_view member = contents.has(".data/version") ? ".data/version" : "version";
  const std::string text = one_line(contents.text(member));
  std::uint64_t version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size()) {
    return "the archive's version '" + printable(text) + "' is no number; export the file again";
  }
  constexpr std::uint64_t kNewest = caffe2::serialize::kMaxSupportedFileFormatVersion;
  constexpr std::uint64_t kOldest = caffe2::serialize::kMinSupportedFileFormatVersion;
  if (version > kNewest || version < kOldest) {
    return std::string("the file was written by ") + (version > kNewest ? "a newer" : "an older") +
           " torch: it has format " + text + ", LibTorch " TORCH_VERSION " reads " +
           std::to_string(kOldest) + " to " + std::to_string(kNewest) + "; " +
           (version > kNewest ? "use a convship built for a newer torch, or export it with torch "
                                "of this version"
                              : "export it again");
  }
  if (contents.has("byteorder") && one_line(contents.text("byteorder")) == "big") {
    return "the file was written on a big-endian machine, which is not supported; export it on a "
           "little-endian one";
  }
  return {};
}

}  // namespace convship::runtime
