#include "archive.h"

#include <zip.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <string_view>
#include <system_error>

#include "convship/error.h"
#include "custom_ops.h"
#include "file_kind.h"
#include "sha256.h"

namespace convship::runtime {
namespace {

// The ZIP comment of a convship file: this, then 64 hexadecimal digits.
constexpr std::string_view kDigestPrefix = "convship1 sha256=";
constexpr std::size_t kDigestDigits = 64;
constexpr zip_int64_t kMaxMembers = 100'000;
// LibTorch compresses only source and debug text; anything that unpacks to far
// more than the file is a bomb.
constexpr zip_uint64_t kMaxExpansion = 8;
constexpr zip_uint64_t kExpansionSlack = 64 << 20;

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::model, name + ": " + what);
}

using Zip = std::unique_ptr<zip_t, decltype(&zip_discard)>;
using ZipFile = std::unique_ptr<zip_file_t, decltype(&zip_fclose)>;

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

Zip open_zip(std::span<const std::byte> bytes, const std::string& name) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  zip_t* zip = source == nullptr ? nullptr
                                 : zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error);
  if (zip == nullptr) {
    if (source != nullptr) zip_source_free(source);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    fail(name, "the file is damaged or truncated (" + reason + "); fetch or export it again");
  }
  zip_error_fini(&error);
  return {zip, &zip_discard};
}

struct Member {
  zip_uint64_t index = 0;
  zip_uint64_t size = 0;
  std::string full;
  std::string path;  // without the archive's top folder
};

// Members in order; throws on sizes that no TorchScript archive has.
std::vector<Member> list_members(zip_t* zip, std::size_t file_size, const std::string& name) {
  const zip_int64_t count = zip_get_num_entries(zip, 0);
  if (count <= 0 || count > kMaxMembers) {
    fail(name, "a model has 1 to " + std::to_string(kMaxMembers) + " members, this archive has " +
                   std::to_string(count));
  }
  std::vector<Member> members;
  zip_uint64_t total = 0;
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t stat;
    const auto index = static_cast<zip_uint64_t>(i);
    if (zip_stat_index(zip, index, 0, &stat) != 0 || (stat.valid & ZIP_STAT_NAME) == 0 ||
        (stat.valid & ZIP_STAT_SIZE) == 0) {
      fail(name, "the file is damaged: member " + std::to_string(i) + " cannot be read");
    }
    // Each alone first, so that the sum cannot wrap around.
    if (stat.size > file_size * kMaxExpansion + kExpansionSlack ||
        (total += stat.size) > file_size * kMaxExpansion + kExpansionSlack) {
      fail(name, "its members unpack to far more than the file holds; the file is refused");
    }
    const std::string full = stat.name;
    members.push_back({index, stat.size, full, full.substr(full.find('/') + 1)});
  }
  return members;
}

// LibTorch extracts nothing, but names that lead elsewhere or stand twice are a
// sign of a file made to be read differently by different readers.
void check_names(const std::vector<Member>& members, const std::string& name) {
  const std::string top = members.front().full.substr(0, members.front().full.find('/') + 1);
  std::set<std::string> seen;
  for (const Member& member : members) {
    const std::string& full = member.full;
    if (top.size() < 2 || !full.starts_with(top) || full.find("..") != std::string::npos ||
        full.find('\\') != std::string::npos || !seen.insert(full).second) {
      fail(name, "member name '" + full + "' is not one of a model; the file is refused");
    }
  }
}

// Reads a member to its end, which makes libzip compare its CRC-32.
std::vector<std::byte> read_member(zip_t* zip, const Member& member, const std::string& name) {
  const ZipFile file(zip_fopen_index(zip, member.index, 0), &zip_fclose);
  std::vector<std::byte> bytes(member.size);
  zip_uint64_t done = 0;
  while (file && done < member.size) {
    const zip_int64_t got = zip_fread(file.get(), bytes.data() + done, member.size - done);
    if (got <= 0) break;
    done += static_cast<zip_uint64_t>(got);
  }
  char beyond = 0;
  if (!file || done < member.size || zip_fread(file.get(), &beyond, 1) != 0) {
    fail(name, "member '" + member.path + "' is damaged; fetch or export the file again");
  }
  return bytes;
}

const Member* find(const std::vector<Member>& members, std::string_view path) {
  for (const Member& member : members) {
    if (member.path == path) return &member;
  }
  return nullptr;
}

bool has_folder(const std::vector<Member>& members, std::string_view folder) {
  for (const Member& member : members) {
    if (member.path.starts_with(folder)) return true;
  }
  return false;
}

ArchiveContents contents_of(zip_t* zip,
                            const std::vector<Member>& members,
                            const std::string& name) {
  return {[&members](std::string_view path) { return find(members, path) != nullptr; },
          [&members](std::string_view folder) { return has_folder(members, folder); },
          [zip, &members, &name](std::string_view path) {
            const Member* member = find(members, path);
            if (member == nullptr) return std::string();
            const auto bytes = read_member(zip, *member, name);
            return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          }};
}

void check_kind(const ArchiveContents& contents, const std::string& name) {
  if (const std::string other = describe_other_archive(contents); !other.empty()) fail(name, other);
  if (const std::string why = describe_unreadable_version(contents); !why.empty()) fail(name, why);
}

// Members of a file without digest are read whole, for their checksums; what
// its code calls stands in no manifest.
std::set<std::string> read_plain(zip_t* zip,
                                 const std::vector<Member>& members,
                                 const std::string& name) {
  std::set<std::string> ops;
  for (const Member& member : members) {
    const auto bytes = read_member(zip, member, name);
    if (member.path.starts_with("code/") && member.path.ends_with(".py")) {
      collect_custom_ops({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, ops);
    }
  }
  return ops;
}

// The digest written into the archive comment; empty if there is none.
std::string written_digest(zip_t* zip, std::size_t file_size, std::size_t* covered) {
  int length = 0;
  const char* comment = zip_get_archive_comment(zip, &length, ZIP_FL_ENC_RAW);
  if (comment == nullptr || length < 0) return {};
  const std::string_view text(comment, static_cast<std::size_t>(length));
  if (text.size() != kDigestPrefix.size() + kDigestDigits || !text.starts_with(kDigestPrefix)) {
    return {};
  }
  *covered = file_size - text.size();
  return std::string(text.substr(kDigestPrefix.size()));
}

}  // namespace

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail(path.string(), "no such model file");
  if (!std::filesystem::is_regular_file(status))
    fail(path.string(), "a model is a regular file, this is not");
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = stream ? static_cast<std::streamoff>(stream.tellg()) : -1;
  std::vector<std::byte> bytes(size > 0 ? static_cast<std::size_t>(size) : 0);
  stream.seekg(0);
  if (size < 0 || !stream.read(reinterpret_cast<char*>(bytes.data()), size)) {
    fail(path.string(), std::string("cannot be read (") + std::strerror(errno) + ")");
  }
  return bytes;
}

Archive open_archive(std::vector<std::byte> bytes, const std::string& name, bool allow_plain) {
  if (!starts_with(bytes, "PK\x03\x04")) fail(name, describe_other_file(bytes));
  Archive archive;
  archive.bytes = std::move(bytes);
  const Zip zip = open_zip(archive.bytes, name);

  std::size_t covered = 0;
  const std::string digest = written_digest(zip.get(), archive.bytes.size(), &covered);
  if (!digest.empty() &&
      sha256_hex(std::span<const std::byte>(archive.bytes).first(covered)) != digest) {
    fail(name,
         "the file is damaged: its SHA-256 differs from the one written at export; fetch or "
         "export it again");
  }

  const std::vector<Member> members = list_members(zip.get(), archive.bytes.size(), name);
  check_kind(contents_of(zip.get(), members, name), name);
  check_names(members, name);
  const Member* manifest = find(members, "extra/manifest.json");
  if (digest.empty()) {
    if (manifest != nullptr) {
      fail(name, "this convship model has lost its digest; fetch or export it again");
    }
    if (!allow_plain) {
      fail(name,
           "this is a plain TorchScript file without convship's manifest and digest; "
           "pass --plain (allow_plain) if you trust its origin");
    }
    const auto ops = read_plain(zip.get(), members, name);
    archive.custom_ops.assign(ops.begin(), ops.end());
    return archive;
  }
  if (manifest == nullptr) fail(name, "the manifest is missing; export the file again");
  const auto text = read_member(zip.get(), *manifest, name);
  archive.manifest.assign(reinterpret_cast<const char*>(text.data()), text.size());
  if (const Member* goldens = find(members, "extra/goldens.safetensors")) {
    archive.goldens = read_member(zip.get(), *goldens, name);
  }
  return archive;
}

}  // namespace convship::runtime
