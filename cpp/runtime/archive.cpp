#include "archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>
#include <system_error>

#include "comment.h"
#include "convship/error.h"
#include "custom_ops.h"
#include "descriptor.h"
#include "file_kind.h"
#include "package.h"
#include "sha256.h"
#include "signature.h"
#include "zip_archive.h"

namespace convship::runtime {
namespace {

// Of labels there may be many thousands, of code text some megabytes.
constexpr std::uint64_t kMaxManifest = 16 << 20;
constexpr std::uint64_t kMaxCode = 32 << 20;
// More than this is not looked at to tell what a file is.
constexpr std::size_t kLookedAt = 64 << 10;

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::model, name + ": " + what);
}

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Throws for a file that was shipped with a digest.
void check_not_ours(const ZipArchive& zip, const std::string& name) {
  if (zip.find("extra/manifest.json") != nullptr) {
    fail(name, "this convship model has lost its digest; fetch or export it again");
  }
}

ArchiveKind check_kind(const ZipArchive& zip, const std::string& name, bool plain) {
  const ArchiveContents contents = {
      [&zip](std::string_view path) { return zip.find(path) != nullptr; },
      [&zip](std::string_view folder) { return zip.has_folder(folder); },
      [&zip](std::string_view path) {
        const ZipArchive::Member* member = zip.find(path);
        return member == nullptr ? std::string() : zip.head(*member, kLookedAt);
      }};
  const bool package = !is_torchscript(contents) && is_aotinductor(contents);
  if (package && plain) check_not_ours(zip, name);
  const std::string other = package && !plain ? "" : describe_other_archive(contents);
  if (!other.empty()) fail(name, other);
  if (const std::string why = describe_unreadable_version(contents); !why.empty()) fail(name, why);
  return package ? ArchiveKind::aotinductor : ArchiveKind::torchscript;
}

// Members of a file without digest are read to their ends, for their checksums;
// what its code calls stands in no manifest.
std::set<std::string> read_plain(const ZipArchive& zip) {
  std::set<std::string> ops;
  for (const ZipArchive::Member& member : zip.members()) {
    if (member.path.starts_with("code/") && member.path.ends_with(".py")) {
      collect_custom_ops(text_of(zip.read(member, kMaxCode)), ops);
    } else {
      zip.verify(member);
    }
  }
  return ops;
}

// The SHA-256 of all bytes. Throws unless those before the comment are the ones
// that it was written for, where it holds a digest.
std::string check_digest(std::span<const std::byte> bytes,
                         const ZipArchive& zip,
                         const std::string& name) {
  const std::size_t covered = bytes.size() - zip.comment().size();
  const std::string_view expected = parse_comment(zip.comment()).digest;
  Sha256 sha256;
  sha256.update(bytes.first(covered));
  if (!expected.empty() && sha256.hexadecimal() != expected) {
    fail(name,
         "the file is damaged: its SHA-256 differs from the one written at export; fetch or "
         "export it again");
  }
  sha256.update(bytes.subspan(covered));
  return sha256.hexadecimal();
}

// Throws unless one of the keys signed the digest.
void check_signature(const Comment& comment,
                     const std::string& public_key,
                     const std::string& name) {
  if (is_signed_by(public_key, comment.digest, comment.signature)) return;
  if (comment.signature.empty()) {
    fail(name,
         "the file is not signed, and only signed ones are accepted here (a public key was "
         "given); sign it with 'convship sign'");
  }
  fail(name,
       "the file's signature is not of the given public key; fetch it again from its author, or "
       "sign it with the key that belongs to this one");
}

// Throws unless the file may be loaded without a digest.
void check_plain(const ZipArchive& zip, const std::string& name, bool allow_plain) {
  check_not_ours(zip, name);
  if (!allow_plain) {
    fail(name,
         "this is a plain TorchScript file without convship's manifest and digest; "
         "pass --plain (allow_plain) if you trust its origin");
  }
  if (!zip.comment().empty()) {
    fail(name,
         "torch writes archives without a comment, this one has one: it is damaged, or made to be "
         "read differently by different readers");
  }
}

[[noreturn]] void fail_unreadable(const std::string& name, int error) {
  fail(name, "cannot be read (" + std::generic_category().message(error) + ")");
}

}  // namespace

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const std::string name = path.string();
  // Without waiting: a pipe is opened at once, and refused like a folder.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status = {};
  if (file.get() < 0 && (errno == ENOENT || errno == ENOTDIR)) fail(name, "no such model file");
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) fail_unreadable(name, errno);
  if (!S_ISREG(status.st_mode)) fail(name, "a model is a regular file, this is not");
  std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_unreadable(name, errno);
    if (got == 0) fail(name, "the file became shorter while it was read; fetch it again");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

Archive open_archive(std::vector<std::byte> bytes,
                     const std::string& name,
                     const Accepted& accepted) {
  if (!starts_with(bytes, "PK\x03\x04")) fail(name, describe_other_file(bytes));
  Archive archive;
  archive.bytes = std::move(bytes);
  const ZipArchive zip(archive.bytes, name);
  const Comment comment = parse_comment(zip.comment());
  archive.plain = comment.digest.empty();
  archive.sha256 = check_digest(archive.bytes, zip, name);
  if (!accepted.public_key.empty()) check_signature(comment, accepted.public_key, name);
  archive.kind = check_kind(zip, name, archive.plain);
  zip.check_names();
  if (archive.kind == ArchiveKind::aotinductor) check_package(zip, name);
  if (archive.plain) {
    check_plain(zip, name, accepted.plain);
    const auto ops = read_plain(zip);
    archive.custom_ops.assign(ops.begin(), ops.end());
    return archive;
  }
  for (const ZipArchive::Member& member : zip.members()) {
    if (member.packed) zip.verify(member);  // what LibTorch would have to unpack
  }
  const ZipArchive::Member* manifest = zip.find("extra/manifest.json");
  if (manifest == nullptr) fail(name, "the manifest is missing; export the file again");
  archive.manifest = text_of(zip.read(*manifest, kMaxManifest));
  const bool package = archive.kind == ArchiveKind::aotinductor;
  if (const auto* goldens = zip.find(package ? kPackageGoldens : "extra/goldens.safetensors")) {
    archive.goldens = zip.read(*goldens);
  }
  return archive;
}

std::vector<std::byte> signed_archive(const Archive& archive, const std::string& private_key) {
  const ZipArchive zip(archive.bytes, "archive");
  std::vector<std::byte> bytes = archive.bytes;
  bytes.resize(bytes.size() - zip.comment().size());
  // The comment's length stands before it, and is part of what the digest covers.
  bytes[bytes.size() - 2] = static_cast<std::byte>(kSignedCommentSize & 255);
  bytes[bytes.size() - 1] = static_cast<std::byte>(kSignedCommentSize >> 8);
  const std::string digest = sha256_hex(bytes);
  const std::string comment = signed_comment(digest, sign_digest(private_key, digest));
  const auto text = std::as_bytes(std::span(comment));
  bytes.insert(bytes.end(), text.begin(), text.end());
  return bytes;
}

}  // namespace convship::runtime
