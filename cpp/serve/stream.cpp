#include "serve/stream.h"

#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace convship::serve {
namespace {

class Plain final : public Stream {
 public:
  explicit Plain(tcp::socket socket) : socket_(std::move(socket)) {}

  asio::awaitable<void> handshake() override { co_return; }
  asio::awaitable<std::size_t> read(asio::mutable_buffer into) override {
    co_return co_await socket_.async_read_some(into, asio::use_awaitable);
  }
  asio::awaitable<void> write(std::vector<asio::const_buffer> from) override {
    co_await asio::async_write(socket_, from, asio::use_awaitable);
  }
  tcp::socket& socket() override { return socket_; }

 private:
  tcp::socket socket_;
};

class Tls final : public Stream {
 public:
  Tls(tcp::socket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}

  asio::awaitable<void> handshake() override {
    co_await stream_.async_handshake(asio::ssl::stream_base::server, asio::use_awaitable);
  }
  asio::awaitable<std::size_t> read(asio::mutable_buffer into) override {
    co_return co_await stream_.async_read_some(into, asio::use_awaitable);
  }
  asio::awaitable<void> write(std::vector<asio::const_buffer> from) override {
    co_await asio::async_write(stream_, from, asio::use_awaitable);
  }
  tcp::socket& socket() override { return stream_.next_layer(); }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<Stream> plain_stream(tcp::socket socket) {
  return std::make_unique<Plain>(std::move(socket));
}

std::unique_ptr<Stream> tls_stream(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<Tls>(std::move(socket), context);
}

}  // namespace convship::serve
