#include "private_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "convship/error.h"
#include "descriptor.h"

namespace convship::runtime {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::environment, path.string() + ": " +
                                          std::generic_category().message(error) +
                                          "; a .pt2 file needs a temporary folder with room for "
                                          "its network, set TMPDIR to one");
}

}  // namespace

PrivateFolder::PrivateFolder() {
  const char* chosen = std::getenv("TMPDIR");
  const std::filesystem::path parent = chosen != nullptr && *chosen != 0 ? chosen : "/tmp";
  std::string name = (std::filesystem::absolute(parent) / "convship-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail(parent, errno);  // with mode 0700
  path_ = name;
}

PrivateFolder::~PrivateFolder() {
  for (const auto& file : files_) ::unlink(file.c_str());
  ::rmdir(path_.c_str());
}

std::filesystem::path PrivateFolder::write(const std::string& name,
                                           std::span<const std::byte> bytes) {
  const std::filesystem::path path = path_ / name;
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                               S_IRUSR | S_IWUSR));
  if (file.get() < 0) fail(path_, errno);
  files_.push_back(path);
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, errno);
    done += static_cast<std::size_t>(count);
  }
  return path;
}

}  // namespace convship::runtime
