#include "serve/http_server.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <set>

#include "convship/error.h"
#include "serve/connection.h"

namespace convship::serve {
namespace {

using boost::system::error_code;

constexpr std::chrono::milliseconds kTick{50};  // how exact time-outs are

std::optional<asio::ssl::context> tls_context(const HttpOptions& options) {
  if (options.tls_certificate.empty()) return {};
  asio::ssl::context context(asio::ssl::context::tls_server);
  context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                      asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                      asio::ssl::context::no_tlsv1_1);
  const auto load = [](const std::filesystem::path& path, const char* what, const auto& use) {
    error_code error;
    use(path.string(), error);
    if (error) {
      throw Error(ErrorCode::usage,
                  path.string() + ": the TLS " + what +
                      " must be a PEM file that fits the other: " + error.message());
    }
  };
  load(options.tls_certificate, "certificate", [&](const std::string& path, error_code& error) {
    context.use_certificate_chain_file(path, error);
  });
  load(options.tls_key, "key", [&](const std::string& path, error_code& error) {
    context.use_private_key_file(path, asio::ssl::context::pem, error);
  });
  return context;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpOptions& options, Service& service, Metrics& metrics, Log& log);

  const std::string& url() const { return url_; }
  bool is_loopback() const { return loopback_; }
  bool run(const std::function<void()>& on_drain);

 private:
  void listen();
  asio::awaitable<void> accept();
  asio::awaitable<void> serve(std::shared_ptr<Connection> connection);
  asio::awaitable<void> tick();
  asio::awaitable<void> wait_for_signals();
  void drain();
  // Closes a connection that keeps the server waiting; false where none does.
  bool make_room();
  void turn_away(tcp::socket socket);

  const HttpOptions& options_;
  Metrics& metrics_;
  Log& log_;
  asio::io_context io_{1};
  std::optional<asio::ssl::context> tls_;
  tcp::acceptor acceptor_{io_};
  asio::steady_timer timer_{io_};
  asio::signal_set signals_{io_, SIGTERM, SIGINT};
  // Answers come from other threads, which the context does not know of.
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  ConnectionContext context_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::function<void()> on_drain_;
  Clock::time_point drain_end_;
  bool finished_ = false;
  std::string url_;
  bool loopback_ = true;
};

HttpServer::Impl::Impl(const HttpOptions& options, Service& service, Metrics& metrics, Log& log)
    : options_(options),
      metrics_(metrics),
      log_(log),
      tls_(tls_context(options)),
      context_{options, service, metrics, io_} {
  listen();
}

void HttpServer::Impl::listen() {
  const auto fail = [&](const error_code& error) {
    throw Error(ErrorCode::environment, "cannot listen on " + options_.host + " port " +
                                            std::to_string(options_.port) + ": " + error.message());
  };
  error_code error;
  const auto found =
      tcp::resolver(io_).resolve(options_.host, std::to_string(options_.port), error);
  if (error) fail(error);
  const tcp::endpoint endpoint = *found.begin();
  if (acceptor_.open(endpoint.protocol(), error)) fail(error);
  if (acceptor_.set_option(tcp::acceptor::reuse_address(true), error)) fail(error);
  if (acceptor_.bind(endpoint, error)) fail(error);
  if (acceptor_.listen(tcp::acceptor::max_listen_connections, error)) fail(error);
  const auto bound = acceptor_.local_endpoint();
  const std::string address = bound.address().to_string();
  url_ = std::string(tls_ ? "https://" : "http://") +
         (bound.address().is_v6() ? "[" + address + "]" : address) + ":" +
         std::to_string(bound.port());
  loopback_ = bound.address().is_loopback();
}

bool HttpServer::Impl::run(const std::function<void()>& on_drain) {
  on_drain_ = on_drain;
  asio::co_spawn(io_, accept(), asio::detached);
  asio::co_spawn(io_, tick(), asio::detached);
  asio::co_spawn(io_, wait_for_signals(), asio::detached);
  io_.run();
  return finished_;
}

asio::awaitable<void> HttpServer::Impl::accept() {
  while (!context_.draining) {
    error_code error;
    tcp::socket socket =
        co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (context_.draining) co_return;
    if (error) {
      // No file descriptor is left, perhaps: the next moment may have one.
      log_.write("warning", "accept_failed", {{"error", error.message()}});
      asio::steady_timer pause(io_, kTick);
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    if (connections_.size() >= options_.max_connections && !make_room()) {
      turn_away(std::move(socket));
      continue;
    }
    auto stream = tls_ ? tls_stream(std::move(socket), *tls_) : plain_stream(std::move(socket));
    auto connection = std::make_shared<Connection>(context_, std::move(stream));
    connections_.insert(connection);
    asio::co_spawn(io_, serve(std::move(connection)), asio::detached);
  }
}

asio::awaitable<void> HttpServer::Impl::serve(std::shared_ptr<Connection> connection) {
  co_await connection->run();
  connections_.erase(connection);
}

bool HttpServer::Impl::make_room() {
  // Whoever does so for the longest: a client that has just come is served in time
  // even while others fill the server with connections on which nothing happens.
  std::shared_ptr<Connection> oldest;
  for (const auto& each : connections_) {
    const bool is_theirs = each->phase() == Connection::Phase::waiting ||
                           each->phase() == Connection::Phase::receiving ||
                           each->phase() == Connection::Phase::closing;
    if (is_theirs && (!oldest || each->since() < oldest->since())) oldest = each;
  }
  if (!oldest) return false;
  metrics_.count_rejection(Rejection::connections);
  oldest->close();
  connections_.erase(oldest);  // it ends by itself, but counts no more
  return true;
}

void HttpServer::Impl::turn_away(tcp::socket socket) {
  metrics_.count_rejection(Rejection::connections);
  if (tls_) return;
  const Reply reply = error_reply(503,
                                  "the server has as many connections as it may "
                                  "(--max-connections); try again later");
  const std::string text =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(reply.body.size()) + "\r\n\r\n" + reply.body;
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(text), ignored);
}

asio::awaitable<void> HttpServer::Impl::tick() {
  for (;;) {
    timer_.expires_after(kTick);
    error_code error;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
    const auto now = Clock::now();
    for (const auto& each : connections_) {
      if (now > each->deadline()) each->expire();
    }
    if (!context_.draining) continue;
    finished_ = connections_.empty();
    if (!finished_ && now > drain_end_) {
      log_.write("warning", "drain_cut", {{"connections", connections_.size()}});
    }
    if (finished_ || now > drain_end_) io_.stop();
  }
}

asio::awaitable<void> HttpServer::Impl::wait_for_signals() {
  co_await signals_.async_wait(asio::use_awaitable);
  drain();
  co_await signals_.async_wait(asio::use_awaitable);
  log_.write("warning", "drain_cut", {{"connections", connections_.size()}});
  io_.stop();
}

void HttpServer::Impl::drain() {
  log_.write("info", "draining", {{"connections", connections_.size()}});
  context_.draining = true;
  drain_end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(options_.drain_timeout);
  on_drain_();
  error_code ignored;
  acceptor_.close(ignored);
  for (const auto& each : connections_) {
    if (each->phase() == Connection::Phase::waiting) each->close();
  }
}

HttpServer::HttpServer(const HttpOptions& options, Service& service, Metrics& metrics, Log& log)
    : impl_(std::make_unique<Impl>(options, service, metrics, log)) {}
HttpServer::~HttpServer() = default;

const std::string& HttpServer::url() const { return impl_->url(); }
bool HttpServer::is_loopback() const { return impl_->is_loopback(); }
bool HttpServer::run(const std::function<void()>& on_drain) { return impl_->run(on_drain); }

}  // namespace convship::serve
