// A ZIP archive in memory, read through libzip. Opening it checks its structure
// and sizes; whatever is wrong is Error(model), `name` in front.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct zip;

namespace convship::runtime {

class ZipArchive {
 public:
  struct Member {
    std::uint64_t index = 0;
    std::uint64_t size = 0;
    bool packed = false;
    std::string full;  // the bytes of the name as they stand in the file
    std::string path;  // without the archive's top folder
  };

  // `bytes` must outlive it.
  ZipArchive(std::span<const std::byte> bytes, std::string name);

  // Stands at the very end of the file.
  std::string_view comment() const { return comment_; }
  const std::vector<Member>& members() const { return members_; }
  const Member* find(std::string_view path) const;
  bool has_folder(std::string_view folder) const;  // "code/"

  // Throws where a name is none that a model's members have, or where LibTorch's
  // reader would take two members for one.
  void check_names() const;

  // The whole member, checksum compared; throws beyond `limit` bytes.
  std::vector<std::byte> read(const Member& member, std::uint64_t limit = UINT64_MAX) const;
  // Its first bytes, at most `limit`, for messages.
  std::string head(const Member& member, std::size_t limit) const;
  // Reads it to its end for its checksum, and keeps nothing.
  void verify(const Member& member) const;

 private:
  struct Close {
    void operator()(zip* archive) const;
  };

  // Also checks that the archive is laid out for one reading only.
  void find_comment();
  void list_members();
  // Calls take(bytes, count) until the end or until it returns false.
  template <typename Take>
  void read_chunks(const Member& member, const Take& take) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::span<const std::byte> bytes_;
  const std::string name_;
  std::unique_ptr<zip, Close> zip_;
  std::string_view comment_;
  std::vector<Member> members_;
};

}  // namespace convship::runtime
