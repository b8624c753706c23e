// What the server can be told.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "convship/model.h"

namespace convship::serve {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;                        // 0: any that is free
  std::filesystem::path tls_certificate;  // PEM, with its chain; empty: no TLS
  std::filesystem::path tls_key;
  std::size_t max_body_bytes = std::size_t{32} << 20;
  std::size_t max_header_bytes = std::size_t{16} << 10;
  // Of all bodies that are being received or wait for their turn.
  std::size_t max_buffered_bytes = std::size_t{256} << 20;
  std::size_t max_connections = 512;
  std::chrono::duration<double> read_timeout{15};   // for a whole header, and a whole body
  std::chrono::duration<double> write_timeout{15};  // for a whole reply
  std::chrono::duration<double> idle_timeout{75};   // between two requests
  std::chrono::duration<double> drain_timeout{30};
};

struct BatchOptions {
  int max_batch = 16;  // rows of one call, and of one request
  std::chrono::microseconds max_delay{0};
  int workers = 1;  // calls at a time
  int threads = 1;  // inside one call
  std::size_t max_queue = 256;
};

struct ServedFile {
  std::string name;
  std::filesystem::path path;
};

struct Options {
  HttpOptions http;
  BatchOptions batch;
  std::vector<ServedFile> models;
  convship::Options load;
  std::filesystem::path api_key_file;  // a key a line; empty: nobody is asked for one
  bool quiet = false;                  // no line for each request
};

// Serves until SIGTERM or SIGINT, and then until what was taken is answered.
// Logs to stderr. Throws Error when it cannot start.
void serve(const Options& options);

}  // namespace convship::serve
