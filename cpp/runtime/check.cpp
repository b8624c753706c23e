#include "check.h"

#include "convship/file.h"
#include "guard.h"

namespace convship {
namespace runtime {

CheckedFile check_file(std::vector<std::byte> bytes,
                       const std::string& name,
                       const Accepted& accepted) {
  CheckedFile file{open_archive(std::move(bytes), name, accepted), {}};
  if (file.archive.plain) return file;
  file.manifest = parse_manifest(file.archive.manifest, name);
  const bool native = file.archive.kind == ArchiveKind::aotinductor;
  if (native != file.manifest->compiled_for.has_value()) {
    throw Error(ErrorCode::model,
                name + (native ? ": the manifest does not say which CPU the network was compiled "
                                 "for; export the file again"
                               : ": the manifest speaks of compiled code that a TorchScript file "
                                 "does not hold; export the file again"));
  }
  return file;
}

}  // namespace runtime

Extras read_extras(const std::filesystem::path& path, const std::string& public_key) {
  return runtime::guarded(ErrorCode::model, path.string(), [&] {
    auto file = runtime::check_file(runtime::read_file(path), path.string(), {false, public_key});
    return Extras{std::move(file.archive.manifest), std::move(file.archive.goldens)};
  });
}

std::vector<std::byte> sign(std::span<const std::byte> bytes,
                            const std::string& private_key,
                            const std::string& name) {
  return runtime::guarded(ErrorCode::model, name, [&] {
    // All checks, so that nobody signs what nobody can load.
    const auto file = runtime::check_file({bytes.begin(), bytes.end()}, name, {});
    return runtime::signed_archive(file.archive, private_key);
  });
}

}  // namespace convship
