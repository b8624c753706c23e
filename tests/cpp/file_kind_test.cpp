// What is no model is named for what it is, before LibTorch reads one byte.
#include "runtime/file_kind.h"

#include <doctest/doctest.h>
#include <zip.h>

#include <set>

#include "convship/model.h"
#include "runtime/custom_ops.h"
#include "shipped.h"

using namespace convship;
using namespace convship::runtime;
using namespace convship::testing;
using namespace std::string_literals;

namespace {

std::string load_message(const std::vector<std::byte>& bytes, bool allow_plain = true) {
  Options options;
  options.allow_plain = allow_plain;
  try {
    Model::load(bytes, options, "file");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::model);
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Member {
  std::string path;
  std::string text;
};

// A ZIP archive of these members.
std::vector<std::byte> archive(const std::vector<Member>& members) {
  zip_error_t error;
  zip_source_t* source = zip_source_buffer_create(nullptr, 0, 0, &error);
  zip_source_keep(source);
  zip_t* zip = zip_open_from_source(source, ZIP_TRUNCATE, &error);
  for (const Member& member : members) {
    zip_file_add(zip, ("m/" + member.path).c_str(),
                 zip_source_buffer(zip, member.text.data(), member.text.size(), 0),
                 ZIP_FL_ENC_UTF_8);
  }
  REQUIRE(zip_close(zip) == 0);
  zip_stat_t stat;
  zip_source_stat(source, &stat);
  std::vector<std::byte> bytes(stat.size);
  zip_source_open(source);
  zip_source_read(source, bytes.data(), bytes.size());
  zip_source_close(source);
  zip_source_free(source);
  return bytes;
}

std::vector<Member> torchscript(std::vector<Member> others) {
  others.push_back({"constants.pkl", "x"});
  others.push_back({"code/a.py", "pass"});
  return others;
}

// Everything in one archive, with `version` instead of torch's own.
std::vector<std::byte> plain_of_version(const std::string& version) {
  return archive(torchscript({{"version", version}}));
}

}  // namespace

TEST_CASE("files that are no archives are named") {
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {""s, "empty"},
      {"\x08\x07\x12\x07pytorch"s, "ONNX"},
      {"\x08\x08\x3a\x10graph"s, "ONNX"},
      {"\x80\x02}q\0"s, "pickle"},
      {"\x80\x05}q\0"s, "pickle"},
      {"\x40\0\0\0\0\0\0\0{\"weight\""s, "safetensors"},
      {"\x89HDF\r\n\x1a\n"s, "HDF5"},
      {"\x1c\0\0\0TFL3"s, "TensorFlow Lite"},
      {"\x1c\0\0\0ET12"s, "ExecuTorch"},
      {"GGUF\3\0"s, "GGUF"},
      {"\x93NUMPY\1"s, "NumPy"},
      {"\x7f"
       "ELF\2"s,
       "shared library"},
      {"\x1f\x8b\x08"s, "gzip"},
      {"\x89PNG\r\n"s, "image"},
      {"<?xml version"s, "OpenVINO"},
      {"<!DOCTYPE html>"s, "web page"},
      {"version https://git-lfs.github.com/spec/v1"s, "git lfs pull"},
      {"hello, world"s, "not a convship model"}};
  for (const auto& [bytes, part] : kinds) {
    CAPTURE(part);
    const std::string message = load_message(bytes_of(bytes));
    CAPTURE(message);
    CHECK(message.starts_with("file: "));
    CHECK(contains(message, part));
  }
}

TEST_CASE("archives that are no TorchScript are named") {
  const std::vector<std::pair<std::vector<Member>, std::string>> kinds = {
      {{{"data.pkl", "\x80\x02weight"}, {"version", "3"}}, "checkpoint or state_dict"},
      {{{"data.pkl", "\x80\x02X_modules"}, {"version", "3"}}, "pickled nn.Module"},
      {{{"data/aotinductor/model/a.so", "x"}, {"archive_format", "pt2"}}, "AOTInductor"},
      {{{"models/model.json", "{}"}, {"archive_format", "pt2"}}, "torch.export"},
      {{{"word/document.xml", "x"}}, "document"},
      {{{"readme.txt", "x"}}, "ZIP archive but not a model"}};
  for (const auto& [members, part] : kinds) {
    CAPTURE(part);
    CHECK(contains(load_message(archive(members)), part));
  }
}

TEST_CASE("a file of a newer torch is named before LibTorch reads it") {
  CHECK(contains(load_message(plain_of_version("11\n")), "a newer torch: it has format 11"));
  CHECK(contains(load_message(plain_of_version("999999999999999999999")), "is no number"));
  CHECK(contains(load_message(plain_of_version("soon")), "'soon' is no number"));
  CHECK(contains(load_message(archive(torchscript({{"version", "3"}, {"byteorder", "big"}}))),
                 "big-endian"));
}

TEST_CASE("an operator that a plain file needs is named before LibTorch parses its code") {
  // LibTorch would not write a file with an operator that it lacks.
  const auto bytes = archive({{"constants.pkl", "x"},
                              {"version", "10"},
                              {"code/__torch__/net.py", "    return ops.acme.fold(x, 1)\n"}});
  CHECK(contains(load_message(bytes), "needs the operator acme::fold"));
}

TEST_CASE("custom operators are found in code, not in texts and names") {
  std::set<std::string> ops;
  collect_custom_ops(
      "x = ops.acme.fold(y, \"ops.not.this('\")\n"
      "# ops.nor.this(x)\n"
      "z = ops.acme.unfold(ops.other.twist(x))\n"
      "w = self.ops.of.mine(x) + drops.of.rain(x) + ops.attribute.only\n"
      "v = 'it\\'s ops.quoted.text(x)'\n"
      "u = ops.prim.NumToTensor(ops.aten.add(x, y))\n"
      "ops.",
      ops);
  const std::set<std::string> expected = {"acme::fold", "acme::unfold", "other::twist"};
  CHECK(ops == expected);
}
