// Classifies images: classify MODEL IMAGE...
#include <convship/model.h>

#include <filesystem>
#include <iostream>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: classify MODEL IMAGE...\n";
    return 2;
  }
  try {
    const auto model = convship::Model::load(argv[1]);
    const std::vector<std::filesystem::path> images(argv + 2, argv + argc);
    const auto answers = model.predict_files(images, /*top_k=*/1);
    for (std::size_t i = 0; i < images.size(); ++i) {
      const convship::Prediction& best = answers[i].front();
      std::cout << images[i].string() << ": " << best.label << ' ' << best.probability << '\n';
    }
  } catch (const convship::Error& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return static_cast<int>(error.code());
  }
}
