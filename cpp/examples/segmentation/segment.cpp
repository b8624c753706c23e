// Segments an image: segment MODEL IMAGE.ppm MASK.pgm
//
// A network of tensors, so the program makes its input itself: pixels of a PPM
// file, rows of RGB, are read where they lie through strides.
#include <convship/model.h>

#include <fstream>
#include <iostream>

namespace {

struct Picture {
  std::int64_t height = 0, width = 0;
  std::vector<float> rgb;  // [H, W, 3], 0 to 1
};

Picture read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int most = 0;
  Picture picture;
  file >> magic >> picture.width >> picture.height >> most;
  file.get();
  std::string bytes(static_cast<std::size_t>(picture.width * picture.height * 3), '\0');
  if (magic != "P6" || most != 255 ||
      !file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw convship::Error(convship::ErrorCode::image, std::string(path) + ": no binary PPM file");
  }
  for (const char c : bytes) picture.rgb.push_back(static_cast<unsigned char>(c) / 255.0f);
  return picture;
}

void write_pgm(const char* path, const Picture& picture, std::span<const std::int64_t> classes) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << picture.width << ' ' << picture.height << "\n255\n";
  for (const std::int64_t each : classes) file.put(static_cast<char>(each * 100));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: segment MODEL IMAGE.ppm MASK.pgm\n";
    return 2;
  }
  try {
    const auto model = convship::Model::load(argv[1]);
    const Picture picture = read_ppm(argv[2]);
    const auto [height, width] = std::pair(picture.height, picture.width);
    // [1, 3, H, W] over memory that is [H, W, 3]: nothing is rearranged.
    const convship::TensorView image{picture.rgb.data(),
                                     convship::DType::float32,
                                     {1, 3, height, width},
                                     {height * width * 3, 1, width * 3, 3}};
    for (const auto& [name, tensor] : model.run({{"image", image}})) {
      std::cout << name << ' ' << name_of(tensor.dtype()) << '\n';
      if (name == "classes") write_pgm(argv[3], picture, tensor.values<std::int64_t>());
    }
  } catch (const convship::Error& error) {
    std::cerr << "segment: " << error.what() << '\n';
    return static_cast<int>(error.code());
  }
}
