#include "package.h"

#include <algorithm>
#include <array>

#include "convship/error.h"
#include "printable.h"

namespace convship::runtime {
namespace {

// Stock loaders extract whatever lies beside the library, compile what is source
// and load what is a library: nothing else may be there.
constexpr std::array<std::string_view, 11> kMembers = {
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    "data/aotinductor/model/model.wrapper_metadata.json",
    "extra/manifest.json",
    kPackageLibrary,
    kPackageOperators,
    kPackagePreprocess,
    kPackageGoldens,
};

constexpr std::uint64_t kMaxPreprocess = 64 << 20;

bool is_expected(const std::string& path) {
  return std::find(kMembers.begin(), kMembers.end(), path) != kMembers.end();
}

// LibTorch will read it: all that a plain file must pass.
void check_torchscript(std::span<const std::byte> bytes, const std::string& name) {
  const ZipArchive zip(bytes, name);
  zip.check_names();
  if (!zip.comment().empty() || zip.find("constants.pkl") == nullptr || !zip.has_folder("code/")) {
    throw Error(ErrorCode::model, name + ": this is no TorchScript archive; export the file again");
  }
  for (const ZipArchive::Member& member : zip.members()) zip.verify(member);
}

}  // namespace

void check_package(const ZipArchive& zip, const std::string& name) {
  for (const ZipArchive::Member& member : zip.members()) {
    if (!is_expected(member.path)) {
      throw Error(ErrorCode::model, name + ": member '" + printable(member.path) +
                                        "' is not one of a model of format .pt2; the file is "
                                        "refused");
    }
  }
  if (zip.find(kPackageLibrary) == nullptr) {
    throw Error(ErrorCode::model,
                name + ": the compiled network is missing; export the file again");
  }
  if (const ZipArchive::Member* preprocess = zip.find(kPackagePreprocess)) {
    check_torchscript(zip.read(*preprocess, kMaxPreprocess), name + " (its preprocessing)");
  }
}

}  // namespace convship::runtime
