// Writes the model files that the C program is tested with into a folder.
#include <fstream>

#include "convship/file.h"
#include "keys.h"
#include "shipped.h"

using namespace convship::testing;

namespace {

bool write(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.flush();
  return static_cast<bool>(out);
}

}  // namespace

int main(int, char** argv) {
  const std::string folder = argv[1];
  const auto signed_two = convship::sign(shipped(kTwo, kTwoManifest), TEST_PRIVATE_KEY);
  const bool written = write(folder + "/colours.pt", shipped(kColours, kColoursManifest)) &&
                       write(folder + "/two.pt", shipped(kTwo, kTwoManifest)) &&
                       write(folder + "/signed.pt", signed_two) &&
                       write(folder + "/plain.pt", bytes_of(save(kSum, "")));
  return written ? 0 : 1;
}
