// Bytes from and to a client, with TLS or without. Only http_server.cpp and
// connection.cpp include this: Asio takes seconds to compile.
#pragma once

// clang-format off
#include <utility>  // first: Asio of Boost 1.74 forgets it
// clang-format on

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <vector>

namespace convship::serve {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;

// Reading and writing throw boost::system::system_error: the client went away,
// or cancel() or close() was called.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual asio::awaitable<void> handshake() = 0;
  // At least a byte.
  virtual asio::awaitable<std::size_t> read(asio::mutable_buffer into) = 0;
  // All of it.
  virtual asio::awaitable<void> write(std::vector<asio::const_buffer> from) = 0;
  virtual tcp::socket& socket() = 0;
};

std::unique_ptr<Stream> plain_stream(tcp::socket socket);
std::unique_ptr<Stream> tls_stream(tcp::socket socket, asio::ssl::context& context);

}  // namespace convship::serve
