#include "zip_archive.h"

#include <zip.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "convship/error.h"
#include "printable.h"
#include "zip_layout.h"

namespace convship::runtime {
namespace {

constexpr zip_int64_t kMaxMembers = 100'000;
// LibTorch compresses only source and debug text; anything that unpacks to far
// more than the file is a bomb.
constexpr zip_uint64_t kMaxExpansion = 8;
constexpr zip_uint64_t kExpansionSlack = 32 << 20;
constexpr std::size_t kChunk = 64 << 10;

using ZipFile = std::unique_ptr<zip_file_t, decltype(&zip_fclose)>;

std::unique_ptr<zip_error_t, decltype(&zip_error_fini)> prepared(zip_error_t& error) {
  zip_error_init(&error);
  return {&error, &zip_error_fini};
}

// As LibTorch's reader compares names.
std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return text;
}

}  // namespace

void ZipArchive::Close::operator()(zip* archive) const { zip_discard(archive); }

void ZipArchive::fail(const std::string& what) const {
  throw Error(ErrorCode::model, name_ + ": " + what);
}

ZipArchive::ZipArchive(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes), name_(std::move(name)) {
  zip_error_t error;
  const auto finish = prepared(error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  if (source != nullptr) {
    zip_.reset(zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error));
  }
  if (!zip_) {
    if (source != nullptr) zip_source_free(source);
    fail(std::string("the file is damaged or truncated (") + zip_error_strerror(&error) +
         "); fetch or export it again");
  }
  find_comment();
  list_members();
}

void ZipArchive::find_comment() {
  int length = 0;
  const char* comment = zip_get_archive_comment(zip_.get(), &length, ZIP_FL_ENC_RAW);
  const auto size = static_cast<std::size_t>(comment == nullptr ? 0 : length);
  const auto* text = reinterpret_cast<const char*>(bytes_.data()) + bytes_.size() - size;
  if (size > bytes_.size() || (size > 0 && std::memcmp(comment, text, size) != 0)) {
    fail("the file is damaged: its comment is not at its end; fetch or export it again");
  }
  comment_ = {text, size};
  if (const std::string problem = layout_problem(bytes_, size); !problem.empty()) {
    fail("the file is damaged, or made to mislead: " + problem + "; fetch or export it again");
  }
}

// Throws on sizes that no TorchScript archive has.
void ZipArchive::list_members() {
  const zip_int64_t count = zip_get_num_entries(zip_.get(), 0);
  if (count <= 0 || count > kMaxMembers) {
    fail("a model has 1 to " + std::to_string(kMaxMembers) + " members, this archive has " +
         std::to_string(count));
  }
  const zip_uint64_t most = bytes_.size() * kMaxExpansion + kExpansionSlack;
  zip_uint64_t unpacked = 0;
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t stat;
    const auto index = static_cast<zip_uint64_t>(i);
    const char* full = zip_get_name(zip_.get(), index, ZIP_FL_ENC_RAW);
    if (full == nullptr || zip_stat_index(zip_.get(), index, 0, &stat) != 0 ||
        (stat.valid & ZIP_STAT_SIZE) == 0 || (stat.valid & ZIP_STAT_COMP_METHOD) == 0) {
      fail("the file is damaged: member " + std::to_string(i) + " cannot be read");
    }
    // Each alone first, so that the sum cannot wrap around.
    if (stat.size > most || (unpacked += stat.size) > most) {
      fail("its members unpack to far more than the file holds; the file is refused");
    }
    const std::string_view name(full);
    members_.push_back({index, stat.size, stat.comp_method != ZIP_CM_STORE, std::string(name),
                        std::string(name.substr(name.find('/') + 1))});
  }
}

const ZipArchive::Member* ZipArchive::find(std::string_view path) const {
  const auto found = std::find_if(members_.begin(), members_.end(),
                                  [&](const Member& member) { return member.path == path; });
  return found == members_.end() ? nullptr : &*found;
}

bool ZipArchive::has_folder(std::string_view folder) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const Member& member) { return member.path.starts_with(folder); });
}

// LibTorch extracts nothing, but names that lead elsewhere or stand twice are a
// sign of a file made to be read differently by different readers.
void ZipArchive::check_names() const {
  const std::string top = members_.front().full.substr(0, members_.front().full.find('/') + 1);
  std::set<std::string> seen;
  for (const Member& member : members_) {
    const std::string& full = member.full;
    if (top.size() < 2 || !full.starts_with(top) || full.find("..") != std::string::npos ||
        full.find("//") != std::string::npos || full.find('\\') != std::string::npos ||
        full.ends_with('/') || !seen.insert(lower(full)).second) {
      fail("member name '" + printable(full) + "' is not one of a model; the file is refused");
    }
  }
}

template <typename Take>
void ZipArchive::read_chunks(const Member& member, const Take& take) const {
  const ZipFile file(zip_fopen_index(zip_.get(), member.index, 0), &zip_fclose);
  std::array<std::byte, kChunk> chunk;
  zip_uint64_t done = 0;
  zip_int64_t got = file ? 1 : -1;
  while (got > 0) {
    // At the end, a read of nothing compares the CRC-32.
    got = zip_fread(file.get(), chunk.data(), chunk.size());
    if (got > 0) {
      done += static_cast<zip_uint64_t>(got);
      if (done > member.size) break;
      if (!take(chunk.data(), static_cast<std::size_t>(got))) return;
    }
  }
  if (got != 0 || done != member.size) {
    fail("member '" + printable(member.path) + "' is damaged; fetch or export the file again");
  }
}

std::vector<std::byte> ZipArchive::read(const Member& member, std::uint64_t limit) const {
  if (member.size > limit) {
    fail("member '" + printable(member.path) + "' must have at most " + std::to_string(limit) +
         " bytes, got " + std::to_string(member.size) + "; the file is refused");
  }
  std::vector<std::byte> bytes;
  // Not more than there can be: the size is only what the archive says.
  bytes.reserve(std::min<std::uint64_t>(member.size, bytes_.size()));
  read_chunks(member, [&](const std::byte* data, std::size_t count) {
    bytes.insert(bytes.end(), data, data + count);
    return true;
  });
  return bytes;
}

std::string ZipArchive::head(const Member& member, std::size_t limit) const {
  std::string text;
  read_chunks(member, [&](const std::byte* data, std::size_t count) {
    text.append(reinterpret_cast<const char*>(data), std::min(count, limit - text.size()));
    return text.size() < limit;
  });
  return text;
}

void ZipArchive::verify(const Member& member) const {
  read_chunks(member, [](const std::byte*, std::size_t) { return true; });
}

}  // namespace convship::runtime
