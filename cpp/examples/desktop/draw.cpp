// Draw a digit with the mouse and see what the network thinks, live.
//
//   draw MODEL [--screenshot FILE.bmp]
//
// Left button draws, right button or Backspace clears, S saves the window into
// the screenshot file, Escape quits.
#include <SDL2/SDL.h>
#include <convship/model.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iostream>

namespace {

constexpr int kCanvas = 280;  // pixels of the window, each side
constexpr int kBars = 260;    // width of the part with the probabilities
constexpr int kPen = 13;      // radius
constexpr SDL_Color kInk{40, 110, 220, 255};

// White ink on black, as the digits that the network was trained on.
class Canvas {
 public:
  void clear() { pixels_.fill(0); }

  void stroke(int x0, int y0, int x1, int y1) {
    const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
    for (int i = 0; i <= steps; ++i) dot(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps);
  }

  convship::PixelView view() const {
    return {pixels_.data(), kCanvas, kCanvas, convship::PixelFormat::gray};
  }
  std::uint8_t at(int x, int y) const { return pixels_[static_cast<std::size_t>(y * kCanvas + x)]; }
  bool is_empty() const {
    return std::all_of(pixels_.begin(), pixels_.end(), [](std::uint8_t p) { return p == 0; });
  }

 private:
  void dot(int x, int y) {
    for (int dy = -kPen; dy <= kPen; ++dy) {
      for (int dx = -kPen; dx <= kPen; ++dx) {
        const int px = x + dx, py = y + dy;
        if (dx * dx + dy * dy > kPen * kPen || px < 0 || py < 0 || px >= kCanvas || py >= kCanvas)
          continue;
        pixels_[static_cast<std::size_t>(py * kCanvas + px)] = 255;
      }
    }
  }

  std::array<std::uint8_t, kCanvas * kCanvas> pixels_{};
};

// A digit out of seven segments, so that no font is needed.
void draw_digit(SDL_Renderer* renderer, int digit, int x, int y, int size) {
  constexpr std::array<std::uint8_t, 10> kSegments = {0x3f, 0x06, 0x5b, 0x4f, 0x66,
                                                      0x6d, 0x7d, 0x07, 0x7f, 0x6f};
  const int w = size / 2, h = size / 2, t = std::max(2, size / 9);
  const std::array<SDL_Rect, 7> places = {{{x, y, w, t},
                                           {x + w - t, y, t, h},
                                           {x + w - t, y + h, t, h},
                                           {x, y + 2 * h - t, w, t},
                                           {x, y + h, t, h},
                                           {x, y, t, h},
                                           {x, y + h - t / 2, w, t}}};
  for (std::size_t i = 0; i < places.size(); ++i) {
    if ((kSegments[static_cast<std::size_t>(digit)] >> i & 1) != 0) {
      SDL_RenderFillRect(renderer, &places[i]);
    }
  }
}

void draw_canvas(SDL_Renderer* renderer, SDL_Texture* texture, const Canvas& canvas) {
  void* pixels = nullptr;
  int pitch = 0;
  if (SDL_LockTexture(texture, nullptr, &pixels, &pitch) != 0) return;
  for (int y = 0; y < kCanvas; ++y) {
    auto* row = static_cast<std::uint8_t*>(pixels) + y * pitch;
    for (int x = 0; x < kCanvas; ++x) std::memset(row + x * 4, canvas.at(x, y), 4);
  }
  SDL_UnlockTexture(texture);
  const SDL_Rect place{0, 0, kCanvas, kCanvas};
  SDL_RenderCopy(renderer, texture, nullptr, &place);
}

void draw_bars(SDL_Renderer* renderer, const std::vector<convship::Prediction>& predictions) {
  constexpr int kRow = kCanvas / 10, kLeft = kCanvas + 44;
  for (const auto& each : predictions) {
    if (each.index > 9) continue;
    const int y = static_cast<int>(each.index) * kRow;
    const bool best = &each == predictions.data();
    SDL_SetRenderDrawColor(renderer, 60, 60, 60, 255);
    draw_digit(renderer, static_cast<int>(each.index), kCanvas + 18, y + 5, kRow - 10);
    const int width = static_cast<int>(std::lround(each.probability * (kBars - 60)));
    const SDL_Rect bar{kLeft, y + 6, std::max(width, 1), kRow - 12};
    if (best) {
      SDL_SetRenderDrawColor(renderer, kInk.r, kInk.g, kInk.b, 255);
    } else {
      SDL_SetRenderDrawColor(renderer, 170, 170, 170, 255);
    }
    SDL_RenderFillRect(renderer, &bar);
  }
}

bool save_window(SDL_Renderer* renderer, const char* path) {
  SDL_Surface* surface =
      SDL_CreateRGBSurfaceWithFormat(0, kCanvas + kBars, kCanvas, 32, SDL_PIXELFORMAT_ARGB8888);
  const bool saved = surface != nullptr &&
                     SDL_RenderReadPixels(renderer, nullptr, SDL_PIXELFORMAT_ARGB8888,
                                          surface->pixels, surface->pitch) == 0 &&
                     SDL_SaveBMP(surface, path) == 0;
  SDL_FreeSurface(surface);
  return saved;
}

class Window {
 public:
  Window() {
    if (SDL_Init(SDL_INIT_VIDEO) != 0) fail();
    window_ = SDL_CreateWindow("convship: draw a digit", SDL_WINDOWPOS_CENTERED,
                               SDL_WINDOWPOS_CENTERED, kCanvas + kBars, kCanvas, 0);
    if (window_ == nullptr) fail();
    renderer_ = SDL_CreateRenderer(window_, -1, SDL_RENDERER_SOFTWARE);
    if (renderer_ == nullptr) fail();
    texture_ = SDL_CreateTexture(renderer_, SDL_PIXELFORMAT_ARGB8888, SDL_TEXTUREACCESS_STREAMING,
                                 kCanvas, kCanvas);
    if (texture_ == nullptr) fail();
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  ~Window() {
    SDL_DestroyTexture(texture_);
    SDL_DestroyRenderer(renderer_);
    SDL_DestroyWindow(window_);
    SDL_Quit();
  }

  SDL_Renderer* show(const Canvas& canvas, const std::vector<convship::Prediction>& predictions) {
    SDL_SetRenderDrawColor(renderer_, 245, 245, 245, 255);
    SDL_RenderClear(renderer_);
    draw_canvas(renderer_, texture_, canvas);
    draw_bars(renderer_, predictions);
    return renderer_;
  }

 private:
  [[noreturn]] static void fail() {
    throw convship::Error(convship::ErrorCode::environment,
                          std::string("no window can be opened: ") + SDL_GetError());
  }

  SDL_Window* window_ = nullptr;
  SDL_Renderer* renderer_ = nullptr;
  SDL_Texture* texture_ = nullptr;
};

struct App {
  convship::Model model;
  const char* screenshot;
  Canvas canvas{};
  std::vector<convship::Prediction> predictions{};
  bool running = true;
  bool changed = true;
  bool save = false;

  void handle(const SDL_Event& event) {
    if (event.type == SDL_QUIT) running = false;
    if (event.type == SDL_KEYDOWN) press(event.key.keysym.sym);
    if (event.type == SDL_MOUSEBUTTONDOWN && event.button.button == SDL_BUTTON_RIGHT) clear();
    if (event.type == SDL_MOUSEBUTTONDOWN && event.button.button == SDL_BUTTON_LEFT) {
      draw(event.button.x, event.button.y, event.button.x, event.button.y);
    }
    if (event.type == SDL_MOUSEMOTION && (event.motion.state & SDL_BUTTON_LMASK) != 0) {
      const auto& to = event.motion;
      draw(to.x - to.xrel, to.y - to.yrel, to.x, to.y);
    }
  }

  void press(SDL_Keycode key) {
    if (key == SDLK_ESCAPE) running = false;
    if (key == SDLK_BACKSPACE) clear();
    if (key == SDLK_s) save = true;
  }

  void clear() {
    canvas.clear();
    changed = true;
  }

  void draw(int x0, int y0, int x1, int y1) {
    canvas.stroke(x0, y0, x1, y1);
    changed = true;
  }

  // However many events came: the network is asked once a frame, if at all.
  void think() {
    if (!changed) return;
    changed = false;
    predictions.clear();
    if (!canvas.is_empty()) predictions = model.predict_pixels(canvas.view(), /*top_k=*/10);
  }
};

void run(App& app) {
  Window window;
  while (app.running) {
    SDL_Event event;
    if (SDL_WaitEventTimeout(&event, 100) != 0) app.handle(event);
    while (SDL_PollEvent(&event) != 0) app.handle(event);
    app.think();
    SDL_Renderer* renderer = window.show(app.canvas, app.predictions);
    if (app.save && app.screenshot != nullptr) {
      if (!save_window(renderer, app.screenshot)) std::cerr << "draw: " << SDL_GetError() << '\n';
      if (!app.predictions.empty()) std::cout << app.predictions.front().label << std::endl;
    }
    app.save = false;
    SDL_RenderPresent(renderer);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool takes_screenshots = argc == 4 && std::strcmp(argv[2], "--screenshot") == 0;
  if (argc != 2 && !takes_screenshots) {
    std::cerr << "usage: draw MODEL [--screenshot FILE.bmp]\n";
    return 2;
  }
  try {
    convship::Options options;
    options.threads = 1;  // one small image at a time
    App app{convship::Model::load(argv[1], options), takes_screenshots ? argv[3] : nullptr};
    app.model.warm_up();  // the first stroke is to be as quick as the tenth
    run(app);
  } catch (const convship::Error& error) {
    std::cerr << "draw: " << error.what() << '\n';
    return static_cast<int>(error.code());
  }
}
