#include "hostile_files.h"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "hostile_zip.h"
#include "runtime/zip_archive.h"
#include "shipped.h"

namespace convship::testing {
namespace {

using nlohmann::json;
using Members = std::vector<ZipMember>;

constexpr char kManifestName[] = "extra/manifest.json";

ZipMember& find(Members& members, const std::string& path) {
  for (ZipMember& member : members) {
    if (member.name.substr(member.name.find('/') + 1) == path) return member;
  }
  throw std::runtime_error("no member " + path);
}

Members without(Members members, const std::string& prefix) {
  std::erase_if(members, [&](const ZipMember& member) {
    return member.name.substr(member.name.find('/') + 1).starts_with(prefix);
  });
  return members;
}

std::string top_of(const Members& members) {
  return members.front().name.substr(0, members.front().name.find('/') + 1);
}

ZipMember named(const std::string& name, const std::string& data = "x") {
  ZipMember member;
  member.name = name;
  member.data = data;
  return member;
}

// ---- The archive's structure

struct Archive {
  Members members;
  ZipEnd end;
};

struct Change {
  const char* what;
  std::function<void(Archive&)> apply;
};

// Adds a member of this name, which may hold a "TOP/".
Change adds(const char* what, std::string name) {
  return {what, [name](Archive& a) {
            std::string full = name;
            if (full.starts_with("TOP/")) full.replace(0, 4, top_of(a.members));
            a.members.push_back(named(full));
          }};
}

// Changes the member that holds the pickled module.
template <typename Edit>
Change edits(const char* what, const Edit& edit) {
  return {what, [edit](Archive& a) { edit(find(a.members, "data.pkl")); }};
}

std::string zip64_field(std::uint16_t length, std::uint64_t value) {
  std::string field;
  put(field, 1, 2);
  put(field, length, 2);
  put(field, value, 8);
  put(field, value, 8);
  return field;
}

std::vector<Change> name_changes() {
  return {
      {"a name twice", [](Archive& a) { a.members.push_back(a.members.back()); }},
      {"names that differ by case",
       [](Archive& a) {
         ZipMember copy = find(a.members, "constants.pkl");
         copy.name.replace(copy.name.find("constants"), 9, "Constants");
         a.members.insert(a.members.begin() + 1, copy);
       }},
      adds("a name that leads up", "TOP/../evil"),
      adds("a name that is only ..", ".."),
      adds("an absolute name", "/etc/passwd"),
      adds("a name of two slashes", "TOP//evil"),
      adds("a name with a backslash", "TOP/..\\evil"),
      adds("a drive letter", "C:\\evil"),
      adds("a name with NUL", std::string("TOP/evil\0.txt", 13)),
      {"a NUL that hides the rest of a name",
       [](Archive& a) {
         a.members.push_back(named(top_of(a.members) + std::string("data.pkl\0x", 10), "evil"));
       }},
      adds("a name of two lines", "TOP/a\nb"),
      adds("a name that clears the terminal", "TOP/\x1b[2J"),
      adds("a name with DEL", "TOP/\x7f"),
      adds("no name", ""),
      adds("a name without folder", "evil"),
      adds("another folder", "other/evil"),
      {"no folder at all",
       [](Archive& a) {
         for (ZipMember& m : a.members) m.name = m.name.substr(m.name.find('/') + 1);
       }},
      {"a symbolic link",
       [](Archive& a) {
         a.members.push_back(named(top_of(a.members) + "link", "/etc/passwd"));
         a.members.back().made_by = 3 << 8;
         a.members.back().attributes = 0120777u << 16;
       }},
      {"a pipe",
       [](Archive& a) {
         a.members.back().made_by = 3 << 8;
         a.members.back().attributes = 0010644u << 16;
       }},
      {"a device",
       [](Archive& a) {
         a.members.back().made_by = 3 << 8;
         a.members.back().attributes = 0020644u << 16;
       }},
  };
}

std::vector<Change> member_changes() {
  return {
      edits("encrypted", [](ZipMember& m) { m.flags = 1; }),
      edits("strongly encrypted", [](ZipMember& m) { m.flags = 0x41; }),
      edits("packed by bzip2", [](ZipMember& m) { m.method = 12; }),
      edits("packed by LZMA", [](ZipMember& m) { m.method = 14; }),
      edits("packed by Zstandard", [](ZipMember& m) { m.method = 93; }),
      edits("packed by nothing known", [](ZipMember& m) { m.method = 0xffff; }),
      edits("two methods", [](ZipMember& m) { m.local_method = 8; }),
      edits("two sizes", [](ZipMember& m) { m.local_size = 1; }),
      edits("two packed sizes", [](ZipMember& m) { m.local_packed_size = 1; }),
      edits("two checksums", [](ZipMember& m) { m.local_crc = 1; }),
      edits("two names", [](ZipMember& m) { m.local_name = m.name + "x"; }),
      edits("two names of one length",
            [](ZipMember& m) {
              m.local_name = m.name;
              m.local_name->back() = 'z';
            }),
      edits("a size beyond the file", [](ZipMember& m) { m.size = m.packed_size = 0x7fffffff; }),
      edits("a size of 4 GiB", [](ZipMember& m) { m.size = 0xfffffffe; }),
      edits("stored, but larger than it is", [](ZipMember& m) { m.size = 1 << 20; }),
      edits("stored, but smaller than it is", [](ZipMember& m) { m.size = 1; }),
      edits("zip64 without its field", [](ZipMember& m) { m.size = m.packed_size = 0xffffffff; }),
      edits("zip64 of 8 EiB",
            [](ZipMember& m) {
              m.size = m.packed_size = 0xffffffff;
              m.extra = m.local_extra = zip64_field(16, std::uint64_t{1} << 63);
            }),
      edits("zip64 of 2^64 - 1",
            [](ZipMember& m) {
              m.size = m.packed_size = 0xffffffff;
              m.extra = m.local_extra = zip64_field(16, ~std::uint64_t{0});
            }),
      edits("a zip64 field that is cut",
            [](ZipMember& m) {
              m.size = m.packed_size = 0xffffffff;
              m.extra = m.local_extra = zip64_field(16, 5).substr(0, 9);
            }),
      edits("an extra field longer than its place",
            [](ZipMember& m) { m.extra = std::string("\x01\x00\xff\xff", 4); }),
      edits("data beyond the file", [](ZipMember& m) { m.offset = 0x7ffffff0; }),
      edits("data in the directory", [](ZipMember& m) { m.offset = 0xfffffff0; }),
      edits("data of another member", [](ZipMember& m) { m.offset = 0; }),
      {"all members in one place",
       [](Archive& a) {
         for (ZipMember& m : a.members) m.offset = 0;
       }},
      edits("packed data that is cut",
            [](ZipMember& m) {
              m.deflate = true;
              m.packed = deflated(m.data).substr(0, 5);
            }),
      edits("a bomb of one member",
            [](ZipMember& m) {
              m.deflate = true;
              m.data.assign(100 << 20, '\0');
            }),
      {"a bomb of many members",
       [](Archive& a) {
         for (int i = 0; i < 64; ++i) {
           ZipMember m =
               named(top_of(a.members) + "b" + std::to_string(i), std::string(1 << 20, 0));
           m.deflate = true;
           a.members.push_back(m);
         }
       }},
      {"a bomb of overlapping members",
       [](Archive& a) {
         ZipMember m = named(top_of(a.members) + "b", std::string(1 << 20, 0));
         m.deflate = true;
         a.members.push_back(m);
         for (int i = 0; i < 500; ++i) {
           ZipMember again = m;
           again.packed = "";
           again.offset = 0;
           again.name += std::to_string(i);
           a.members.push_back(again);
         }
       }},
  };
}

std::vector<Change> end_changes() {
  return {
      {"more members than there are", [](Archive& a) { a.end.entries = 30000; }},
      {"fewer members than there are", [](Archive& a) { a.end.entries = 2; }},
      {"no members", [](Archive& a) { a.end.entries = 0; }},
      {"members on another disk", [](Archive& a) { a.end.entries_here = 1; }},
      {"another disk", [](Archive& a) { a.end.disk = 7; }},
      {"a directory longer than the file", [](Archive& a) { a.end.directory_size = 0x7fffffff; }},
      {"a directory of no size", [](Archive& a) { a.end.directory_size = 0; }},
      {"a directory beyond the file", [](Archive& a) { a.end.directory_offset = 0x7fffffff; }},
      {"a directory at the start", [](Archive& a) { a.end.directory_offset = 0; }},
      {"zip64 end elsewhere",
       [](Archive& a) {
         a.end.zip64 = true;
         a.end.end64_offset = 0;
       }},
      {"zip64 end beyond the file",
       [](Archive& a) {
         a.end.zip64 = true;
         a.end.end64_offset = std::uint64_t{1} << 62;
       }},
      {"zip64 with other members",
       [](Archive& a) {
         a.end.zip64 = true;
         a.end.entries64 = std::uint64_t{1} << 40;
       }},
      {"zip64 with another directory",
       [](Archive& a) {
         a.end.zip64 = true;
         a.end.offset64 = 0;
       }},
      {"bytes between directory and end", [](Archive& a) { a.end.before_end = "stowaway"; }},
      {"another directory before the end",
       [](Archive& a) { a.end.before_end = zip_of({named("m/evil")}); }},
      {"65,535 members",
       [](Archive& a) {
         for (int i = 0; i < 65'000; ++i)
           a.members.push_back(named(std::string("m").append(std::to_string(i)), ""));
         a.end.entries = 0xffff;
       }},
  };
}

std::vector<Change> content_changes() {
  const auto file = [](const char* what, std::string path, std::string text) {
    return Change{what, [path, text](Archive& a) { find(a.members, path).data = text; }};
  };
  const auto drop = [](const char* what, std::string prefix) {
    return Change{what, [prefix](Archive& a) { a.members = without(a.members, prefix); }};
  };
  return {
      file("a newer format", "version", "11\n"),
      file("an older format", "version", "0\n"),
      file("a negative format", "version", "-1\n"),
      file("half a format", "version", "3.5"),
      file("a format of many digits", "version", std::string(5000, '9')),
      file("no format", "version", ""),
      file("big-endian", "byteorder", "big"),
      drop("no version at all", "version"),
      drop("no constants", "constants.pkl"),
      drop("no code", "code/"),
      {"a .pt2 with C++ to compile",
       [](Archive& a) {
         a.members = {named("m/archive_format", "pt2"), named("m/version", "1"),
                      named("m/data/aotinductor/model/x.cpp", "int main() {}")};
       }},
      {"a .pt2 with two libraries",
       [](Archive& a) {
         a.members = {named("m/data/aotinductor/model/a.so"),
                      named("m/data/aotinductor/model/b.so")};
       }},
      {"a .pt2 of one member", [](Archive& a) { a.members = {named("m/archive_format", "pt2")}; }},
      {"a model within an archive",
       [](Archive& a) { a.members = {named("m/model.pt", zip_of(a.members))}; }},
      {"weights alone",
       [](Archive& a) { a.members = {named("m/data.pkl"), named("m/version", "3")}; }}};
}

// ---- The manifest

using Edit = std::function<void(json&)>;

std::vector<std::pair<const char*, Edit>> manifest_changes() {
  const auto set = [](const char* pointer, json value) {
    return [pointer, value](json& m) { m[json::json_pointer(pointer)] = value; };
  };
  const auto drop = [](const char* key) { return [key](json& m) { m.erase(key); }; };
  const auto sizes = [set](json value) { return set("/inputs/0/shape", std::move(value)); };
  std::vector<std::pair<const char*, Edit>> changes = {
      {"format 0", set("/format", 0)},
      {"format 2", set("/format", 2)},
      {"format -1", set("/format", -1)},
      {"format 1.5", set("/format", 1.5)},
      {"format 1e300", set("/format", 1e300)},
      {"format as text", set("/format", "1")},
      {"format null", set("/format", nullptr)},
      {"format true", set("/format", true)},
      {"format 2^64 - 1", set("/format", ~std::uint64_t{0})},
      {"another task", set("/task", "detonation")},
      {"a task that is a number", set("/task", 5)},
      {"general, with one more input", [](json& m) { m["inputs"].push_back(m["inputs"][0]); }},
      {"inputs that are no list", set("/inputs", "x")},
      {"inputs that are texts", set("/inputs", {"x"})},
      {"no inputs", set("/inputs", json::array())},
      {"two outputs",
       [](json& m) {
         m["outputs"].push_back({{"name", "y"}, {"dtype", "float32"}, {"shape", {1, 2}}});
       }},
      {"a dtype that is a number", set("/inputs/0/dtype", 5)},
      {"a name that is a list", set("/inputs/0/name", {"a"})},
      {"a negative size", sizes({1, 3, -1, 32})},
      {"a size of 2^62", sizes({1, 3, std::int64_t{1} << 62, 32})},
      {"a size of 1e300", sizes({1, 3, 1e300, 32})},
      {"half a size", sizes({1, 3, 0.5, 32})},
      {"a size as text", sizes({1, 3, "32", 32})},
      {"sizes whose product overflows", sizes({1 << 30, 1 << 30, 1 << 30, 1 << 30})},
      {"sizes of a petabyte", sizes({1 << 20, 3, 1 << 20, 1 << 10})},
      {"three dimensions", sizes({3, 32, 32})},
      {"1,000 dimensions", sizes(json(std::vector<int>(1000, 1)))},
      {"a shape that is a number", sizes(5)},
      {"a shape that is an object", sizes({{"a", 1}})},
      {"a label too few", [](json& m) { m["labels"].erase(0); }},
      {"a label too many", [](json& m) { m["labels"].push_back("x"); }},
      {"labels that are numbers", set("/labels", {1, 2, 3})},
      {"labels that are one text", set("/labels", "cat")},
      {"one class more in the output",
       [](json& m) { m["outputs"][0]["shape"][1] = m["labels"].size() + 1; }},
      {"any number of classes", set("/outputs/0/shape", {nullptr, nullptr})},
      {"an operator that is missing", set("/required_ops", {"acme::fold"})},
      {"an operator of another library", set("/required_ops", {"convship::explode"})},
      {"an operator without namespace", set("/required_ops", {"fold"})},
      {"an operator of no name", set("/required_ops", {"acme::"})},
      {"an operator of no namespace", set("/required_ops", {"::fold"})},
      {"an operator of three parts", set("/required_ops", {"a::b::c"})},
      {"an operator with a space", set("/required_ops", {"aten::add; import os"})},
      {"a long operator", set("/required_ops", {"a::" + std::string(100'000, 'b')})},
      {"20,000 operators", set("/required_ops", json(std::vector<std::string>(20'000, "a::b")))},
      {"operators that are no list", set("/required_ops", "acme::fold")},
      {"a negative tolerance", set("/tolerances/probabilities", -1)},
      {"a tolerance as text", set("/tolerances/probabilities", "0")},
      {"tolerances that are a list", set("/tolerances", json::array())},
      {"-1 goldens", set("/goldens", -1)},
      {"1e300 goldens", set("/goldens", 1e300)},
      {"2^40 goldens", set("/goldens", std::int64_t{1} << 40)},
      {"a version that is a list", set("/torch", json::array())},
      {"10,001 inputs",
       [](json& m) { m["inputs"] = json(std::vector<json>(10'001, m["inputs"][0])); }}};
  for (const char* key : {"format", "task", "inputs", "outputs", "labels", "required_ops",
                          "tolerances", "goldens", "torch", "convship"}) {
    changes.emplace_back(key, drop(key));
  }
  return changes;
}

std::vector<std::pair<const char*, std::string>> manifest_texts(const std::string& good) {
  const auto nested = [](const std::string& open, const std::string& close, int levels) {
    std::string text;
    for (int i = 0; i < levels; ++i) text += open;
    for (int i = 0; i < levels; ++i) text += close;
    return text;
  };
  return {{"nothing", ""},
          {"a space", " "},
          {"null", "null"},
          {"a number", "1"},
          {"a text", "\"format\""},
          {"a list", "[1]"},
          {"an empty object", "{}"},
          {"no JSON", "<manifest/>"},
          {"cut JSON", good.substr(0, good.size() / 2)},
          {"two JSON", good + good},
          {"not UTF-8", "{\"format\": \"\xff\xfe\"}"},
          {"NUL", good + std::string(1, '\0')},
          {"a million lists", nested("[", "]", 1'000'000)},
          {"a million objects", nested("{\"a\":", "}", 1'000'000)},
          {"17 MiB", good + std::string(17 << 20, ' ')},
          {"a number of a million digits", "{\"format\": 1" + std::string(1'000'000, '0') + "}"}};
}

}  // namespace

std::vector<ZipMember> members_of(std::span<const std::byte> model) {
  const runtime::ZipArchive zip(model, "model");
  Members members;
  for (const auto& member : zip.members()) {
    const auto bytes = zip.read(member);
    ZipMember copy;
    copy.name = member.full;
    copy.data.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    members.push_back(std::move(copy));
  }
  return members;
}

std::string rewritten(std::span<const std::byte> model, bool plain) {
  const Members members = members_of(model);
  return plain ? zip_of(without(members, "extra/")) : with_digest(zip_of(members));
}

std::vector<HostileFile> hostile_files(std::span<const std::byte> model) {
  const Members sound = members_of(model);
  std::vector<HostileFile> files;
  for (const auto& changes : {name_changes(), member_changes(), end_changes(), content_changes()}) {
    for (const Change& change : changes) {
      // Whoever makes such a file can write a digest too.
      Archive digested{sound, {}}, plain{without(sound, "extra/"), {}};
      change.apply(digested);
      change.apply(plain);
      files.push_back({std::string(change.what) + ", digest right",
                       with_digest(zip_of(digested.members, digested.end))});
      files.push_back(
          {std::string(change.what) + ", plain", zip_of(plain.members, plain.end), true});
    }
  }
  const auto with_manifest = [&](const std::string& what, const std::string& text) {
    Members members = sound;
    find(members, kManifestName).data = text;
    files.push_back({"manifest: " + what, with_digest(zip_of(members))});
  };
  Members copy = sound;
  const std::string good = find(copy, kManifestName).data;
  for (const auto& [what, edit] : manifest_changes()) {
    json manifest = json::parse(good);
    edit(manifest);
    with_manifest(what, manifest.dump());
  }
  for (const auto& [what, text] : manifest_texts(good)) with_manifest(what, text);
  files.push_back({"no manifest", with_digest(zip_of(without(sound, kManifestName)))});

  // Around the archive.
  const std::string archive = zip_of(sound), plain = zip_of(without(sound, "extra/"));
  files.push_back({"digest removed", archive, true});
  files.push_back({"plain, not allowed", plain});
  files.push_back(
      {"plain with a comment", zip_of(without(sound, "extra/"), {.comment = "hi"}), true});
  files.push_back({"plain with an archive in its comment",
                   zip_of(without(sound, "extra/"), {.comment = zip_of({named("m/evil")})}), true});
  files.push_back({"bytes after the end", with_digest(archive) + "x", true});
  files.push_back({"a digest of capitals",
                   [&] {
                     std::string text = with_digest(archive);
                     for (std::size_t i = text.size() - 64; i < text.size(); ++i) {
                       text[i] = static_cast<char>(std::toupper(text[i]));
                     }
                     return text;
                   }(),
                   true});
  files.push_back({"bytes before an archive", "#!/bin/sh\n" + with_digest(archive), true});
  files.push_back({"an archive before the archive", zip_of({named("m/a")}) + plain, true});
  files.push_back({"a member's header before the archive", plain.substr(0, 64) + plain, true});
  files.push_back({"a comment longer than the file",
                   zip_of(without(sound, "extra/"), {.comment_size = 0xffff}), true});
  files.push_back({"an archive of nothing", zip_of({}), true});
  files.push_back({"nothing", "", true});
  files.push_back({"the first bytes of an archive", "PK\x03\x04", true});
  return files;
}

}  // namespace convship::testing
