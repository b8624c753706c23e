#include "apps/base64.h"

#include <doctest/doctest.h>

#include <string>

using convship::apps::decode_base64;

namespace {

std::string decoded(std::string_view text) {
  const auto bytes = decode_base64(text);
  if (!bytes) return "refused";
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

}  // namespace

TEST_CASE("the vectors of RFC 4648, with and without padding") {
  CHECK(decoded("").empty());
  CHECK(decoded("Zg==") == "f");
  CHECK(decoded("Zm8=") == "fo");
  CHECK(decoded("Zm9v") == "foo");
  CHECK(decoded("Zm9vYg") == "foob");
  CHECK(decoded("Zm9vYmFy") == "foobar");
  CHECK(decoded("/+8") == "\xff\xef");
}

TEST_CASE("anything else is refused") {
  for (const char* text : {"Z", "Zm9vY", "Zm 9v", "Zm9v\n", "Zh==", "Z===", "====", "Zm9_"}) {
    CAPTURE(text);
    CHECK(decoded(text) == "refused");
  }
}
