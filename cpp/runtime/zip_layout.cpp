#include "zip_layout.h"

#include <cstdint>
#include <cstring>

namespace convship::runtime {
namespace {

constexpr std::uint64_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint64_t kEnd64 = 0x06064b50, kLocator = 0x07064b50, kDescriptor = 0x08074b50;
constexpr std::size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22;
constexpr std::size_t kEnd64Size = 56, kLocatorSize = 20;
// A member's sizes and checksum may follow its data; names may be UTF-8; how hard
// deflate tried means nothing to a reader.
constexpr std::uint64_t kHasDescriptor = 0x0008, kUtf8 = 0x0800, kEffort = 0x0006;
constexpr std::uint64_t kDosArchived = 0x20;
constexpr std::uint64_t kAll16 = 0xffff, kAll32 = 0xffffffff;

struct Problem {
  const char* what;
};

class Layout {
 public:
  Layout(std::span<const std::byte> bytes, std::size_t comment_size)
      : bytes_(bytes), end_(bytes.size() - comment_size) {}

  // Throws Problem.
  void check() {
    read_end();
    std::uint64_t at = directory_, expected = 0;
    for (std::uint64_t i = 0; i < members_; ++i) {
      expected = check_member(at, expected);
      at += kCentralSize + name_size_ + extra_size_;
    }
    require(at == directory_end_, "its directory does not end where it says");
    require(expected == directory_, "there is something between members and directory");
  }

 private:
  static void require(bool condition, const char* what) {
    if (!condition) throw Problem{what};
  }

  std::uint64_t read(std::uint64_t at, std::size_t count) const {
    require(at <= end_ && count <= end_ - at, "a part of it lies beyond its end");
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) {
      value = value << 8 | std::to_integer<std::uint64_t>(bytes_[at + i]);
    }
    return value;
  }

  bool same(std::uint64_t a, std::uint64_t b, std::size_t count) const {
    read(a + count, 0);
    read(b + count, 0);
    return std::memcmp(bytes_.data() + a, bytes_.data() + b, count) == 0;
  }

  // Number, place and size of the directory: in the end, and for large archives
  // (torch's writer: always) in the end of ZIP64 too.
  void read_end() {
    require(end_ >= kEndSize, "it is too short");
    const std::uint64_t end = end_ - kEndSize;
    require(read(end, 4) == kEnd && read(end + 4, 4) == 0, "its directory's end is not at its end");
    const std::uint64_t here = read(end + 8, 2), size = read(end + 12, 4);
    const std::uint64_t place = read(end + 16, 4);
    members_ = read(end + 10, 2);
    require(here == members_, "it has parts elsewhere");
    directory_ = place;
    directory_end_ = end;
    std::uint64_t whole_size = size;
    if (end >= kLocatorSize && read(end - kLocatorSize, 4) == kLocator) {
      whole_size = read_end64(end - kLocatorSize);
      require(place == directory_ || place == kAll32, "its two ends differ");
      require(size == whole_size || size == kAll32, "its two ends differ");
      require(here == members_ || here == kAll16, "its two ends differ");
    } else {
      members_ = here;
    }
    require(directory_ <= directory_end_ && directory_end_ - directory_ == whole_size,
            "its directory does not end where it says");
  }

  std::uint64_t read_end64(std::uint64_t locator) {
    require(locator >= kEnd64Size, "its directory's end is not at its end");
    const std::uint64_t end64 = locator - kEnd64Size;
    require(read(locator + 4, 4) == 0 && read(locator + 8, 8) == end64 &&
                read(locator + 16, 4) == 1 && read(end64, 4) == kEnd64 &&
                read(end64 + 4, 8) == kEnd64Size - 12 && read(end64 + 16, 8) == 0,
            "its directory's end is not at its end");
    members_ = read(end64 + 24, 8);
    require(read(end64 + 32, 8) == members_, "it has parts elsewhere");
    directory_ = read(end64 + 48, 8);
    directory_end_ = end64;
    return read(end64 + 40, 8);
  }

  // The entry of the directory at `at`, whose member must begin at `expected`.
  // Returns where the next one must.
  std::uint64_t check_member(std::uint64_t at, std::uint64_t expected) {
    require(read(at, 4) == kCentral, "its directory is damaged");
    const std::uint64_t flags = read(at + 8, 2), method = read(at + 10, 2);
    require((flags & ~(kHasDescriptor | kUtf8 | kEffort)) == 0 && (method == 0 || method == 8),
            "a member is encrypted or packed in a way that no model is");
    name_size_ = read(at + 28, 2);
    extra_size_ = read(at + 30, 2);
    // The comment of a member and a disk: nobody reads either alike.
    require(read(at + 32, 4) == 0, "a member has a comment, or is elsewhere");
    check_attributes(read(at + 4, 2) >> 8, read(at + 38, 4));
    check_name(at + kCentralSize);
    read_sizes(at);
    require(place_ == expected, "its members do not follow one another");
    require(read(place_, 4) == kLocal && read(place_ + 6, 2) == flags &&
                read(place_ + 8, 2) == method && read(place_ + 26, 2) == name_size_ &&
                same(at + kCentralSize, place_ + kLocalSize, name_size_),
            "a member and the directory say different things of it");
    const std::uint64_t data = place_ + kLocalSize + name_size_ + read(place_ + 28, 2);
    read(data, 0);
    require(packed_size_ <= end_ - data, "a part of it lies beyond its end");
    require(method != 0 || size_ == packed_size_, "a member lies about its size");
    const std::uint64_t data_end = data + packed_size_;
    return (flags & kHasDescriptor) != 0 ? descriptor_end(data_end, read(at + 16, 4)) : data_end;
  }

  // Checksum and sizes again, with or without a mark, of 32 or of 64 bits each.
  std::uint64_t descriptor_end(std::uint64_t at, std::uint64_t checksum) const {
    if (read(at, 4) == kDescriptor) at += 4;
    require(read(at, 4) == checksum, "a member and the directory say different things of it");
    for (const std::size_t bytes : {std::size_t{8}, std::size_t{4}}) {
      if (at + 4 + 2 * bytes <= end_ && read(at + 4, bytes) == packed_size_ &&
          read(at + 4 + bytes, bytes) == size_) {
        return at + 4 + 2 * bytes;
      }
    }
    throw Problem{"a member and the directory say different things of it"};
  }

  void check_attributes(std::uint64_t system, std::uint64_t attributes) const {
    constexpr std::uint64_t kUnix = 3, kKind = 0170000, kRegular = 0100000;
    const std::uint64_t kind = attributes >> 16 & kKind;
    require((attributes & 0xff & ~kDosArchived) == 0 &&
                (system != kUnix || kind == 0 || kind == kRegular),
            "a member is a link, a folder or a device");
  }

  void check_name(std::uint64_t at) const {
    read(at + name_size_, 0);
    for (std::size_t i = 0; i < name_size_; ++i) {
      const auto c = std::to_integer<unsigned char>(bytes_[at + i]);
      require(c >= 0x20 && c != 0x7f, "a member's name is not one of a model");
    }
  }

  // With 64 bits each where there is a field for that.
  void read_sizes(std::uint64_t at) {
    packed_size_ = read(at + 20, 4);
    size_ = read(at + 24, 4);
    place_ = read(at + 42, 4);
    std::uint64_t field = at + kCentralSize + name_size_;
    const std::uint64_t fields_end = field + extra_size_;
    bool found = false;
    while (field < fields_end) {
      require(fields_end - field >= 4, "its directory is damaged");
      const std::uint64_t id = read(field, 2), length = read(field + 2, 2);
      require(length <= fields_end - field - 4, "its directory is damaged");
      if (id == 1) {
        require(!found, "its directory is damaged");
        found = true;
        read_field64(field + 4, field + 4 + length);
      }
      field += 4 + length;
    }
    require(size_ != kAll32 && packed_size_ != kAll32 && place_ != kAll32,
            "its directory is damaged");
  }

  void read_field64(std::uint64_t at, std::uint64_t field_end) {
    for (std::uint64_t* value : {&size_, &packed_size_, &place_}) {
      if (*value != kAll32) continue;
      require(field_end - at >= 8, "its directory is damaged");
      *value = read(at, 8);
      at += 8;
    }
    require(at == field_end, "its directory is damaged");
  }

  std::span<const std::byte> bytes_;
  std::uint64_t end_;  // before the comment
  std::uint64_t members_ = 0, directory_ = 0, directory_end_ = 0;
  // Of the entry that is looked at.
  std::uint64_t name_size_ = 0, extra_size_ = 0, size_ = 0, packed_size_ = 0, place_ = 0;
};

}  // namespace

std::string layout_problem(std::span<const std::byte> bytes, std::size_t comment_size) {
  try {
    Layout(bytes, comment_size).check();
  } catch (const Problem& problem) {
    return problem.what;
  }
  return {};
}

}  // namespace convship::runtime
