// HTTP/1.1 by Boost.Asio, with Boost.Beast's parser: connections cost memory,
// not threads, so slow clients keep nobody waiting. Debian's cpp-httplib has a
// thread per connection and time-outs per byte: a client that sends a byte now
// and then would hold a thread for ever.
#pragma once

#include <functional>
#include <memory>

#include "serve/log.h"
#include "serve/message.h"
#include "serve/metrics.h"
#include "serve/options.h"

namespace convship::serve {

class HttpServer {
 public:
  // Listens, and serves from run() on. What is passed must outlive it. Throws
  // Error(environment) when it cannot listen, Error(usage) for a bad certificate.
  HttpServer(const HttpOptions& options, Service& service, Metrics& metrics, Log& log);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // "http://127.0.0.1:8000"
  const std::string& url() const;
  bool is_loopback() const;
  // Until SIGTERM or SIGINT, and then until every request that was taken is
  // answered: true; or until the drain's time is over, or a second signal comes:
  // false. `on_drain` is called at the first signal.
  bool run(const std::function<void()>& on_drain);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace convship::serve
