// Writes ZIP archives of which every field can lie, for files made by hand.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace convship::testing {

// One member; what is not set is as it should be.
struct ZipMember {
  std::string name;
  std::string data;  // uncompressed
  bool deflate = false;
  std::optional<std::string> packed;  // the bytes that stand in the file
  std::optional<std::uint16_t> method, local_method;
  std::optional<std::uint16_t> flags;
  std::optional<std::uint32_t> crc, local_crc;
  std::optional<std::uint32_t> size, local_size, packed_size, local_packed_size;
  std::optional<std::string> local_name;
  std::optional<std::uint32_t> offset;
  std::string extra, local_extra;
  std::uint16_t made_by = 0;
  std::uint32_t attributes = 0;
};

// The end of the directory, and what may lie around it.
struct ZipEnd {
  std::optional<std::uint16_t> entries = {};
  std::optional<std::uint16_t> entries_here = {};
  std::optional<std::uint16_t> comment_size = {};
  std::optional<std::uint32_t> directory_size = {};
  std::optional<std::uint32_t> directory_offset = {};
  std::uint16_t disk = 0;
  bool zip64 = false;
  std::optional<std::uint64_t> entries64 = {};
  std::optional<std::uint64_t> offset64 = {};
  std::optional<std::uint64_t> end64_offset = {};
  std::string before_end = {};  // between directory and end
  std::string comment = {};
};

inline void put(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 255);
}

inline std::string deflated(const std::string& data) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::uint32_t crc_of(const std::string& data) {
  return static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

struct PlacedMember {
  const ZipMember* member;
  std::uint32_t offset, crc, size, packed_size;
  std::uint16_t method;
};

inline PlacedMember put_local(std::string& out, const ZipMember& member) {
  const std::string packed = member.packed    ? *member.packed
                             : member.deflate ? deflated(member.data)
                                              : member.data;
  const PlacedMember placed{&member,
                            static_cast<std::uint32_t>(out.size()),
                            member.crc.value_or(crc_of(member.data)),
                            member.size.value_or(static_cast<std::uint32_t>(member.data.size())),
                            member.packed_size.value_or(static_cast<std::uint32_t>(packed.size())),
                            member.method.value_or(member.deflate ? 8 : 0)};
  const std::string& name = member.local_name ? *member.local_name : member.name;
  put(out, 0x04034b50, 4);
  put(out, 20, 2);
  put(out, member.flags.value_or(0), 2);
  put(out, member.local_method.value_or(placed.method), 2);
  put(out, 0, 4);  // time and date
  put(out, member.local_crc.value_or(placed.crc), 4);
  put(out, member.local_packed_size.value_or(placed.packed_size), 4);
  put(out, member.local_size.value_or(placed.size), 4);
  put(out, name.size(), 2);
  put(out, member.local_extra.size(), 2);
  out += name + member.local_extra + packed;
  return placed;
}

inline void put_central(std::string& out, const PlacedMember& placed) {
  const ZipMember& member = *placed.member;
  put(out, 0x02014b50, 4);
  put(out, member.made_by, 2);
  put(out, 20, 2);
  put(out, member.flags.value_or(0), 2);
  put(out, placed.method, 2);
  put(out, 0, 4);
  put(out, placed.crc, 4);
  put(out, placed.packed_size, 4);
  put(out, placed.size, 4);
  put(out, member.name.size(), 2);
  put(out, member.extra.size(), 2);
  put(out, 0, 2 + 2 + 2);  // comment, disk, internal attributes
  put(out, member.attributes, 4);
  put(out, member.offset.value_or(placed.offset), 4);
  out += member.name + member.extra;
}

inline std::string zip_of(const std::vector<ZipMember>& members, const ZipEnd& end = {}) {
  std::string out;
  std::vector<PlacedMember> placed;
  for (const ZipMember& member : members) placed.push_back(put_local(out, member));
  const std::size_t directory = out.size();
  for (const PlacedMember& member : placed) put_central(out, member);
  const std::size_t directory_size = out.size() - directory;
  if (end.zip64) {
    const std::size_t end64 = out.size();
    put(out, 0x06064b50, 4);
    put(out, 44, 8);
    put(out, 45, 2);
    put(out, 45, 2);
    put(out, 0, 8);
    put(out, end.entries64.value_or(members.size()), 8);
    put(out, end.entries64.value_or(members.size()), 8);
    put(out, directory_size, 8);
    put(out, end.offset64.value_or(directory), 8);
    put(out, 0x07064b50, 4);
    put(out, 0, 4);
    put(out, end.end64_offset.value_or(end64), 8);
    put(out, 1, 4);
  }
  out += end.before_end;
  put(out, 0x06054b50, 4);
  put(out, end.disk, 2);
  put(out, end.disk, 2);
  put(out,
      end.entries_here.value_or(end.entries.value_or(static_cast<std::uint16_t>(members.size()))),
      2);
  put(out, end.entries.value_or(static_cast<std::uint16_t>(members.size())), 2);
  put(out, end.directory_size.value_or(static_cast<std::uint32_t>(directory_size)), 4);
  put(out, end.directory_offset.value_or(static_cast<std::uint32_t>(directory)), 4);
  put(out, end.comment_size.value_or(static_cast<std::uint16_t>(end.comment.size())), 2);
  return out + end.comment;
}

}  // namespace convship::testing
