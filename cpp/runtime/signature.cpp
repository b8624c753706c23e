#include "signature.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "convship/error.h"
#include "hexadecimal.h"

namespace convship::runtime {
namespace {

constexpr std::size_t kSignatureSize = 64;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

// OpenSSL leaves its errors with the thread; they are nobody else's business.
class NoErrorsLeft {
 public:
  NoErrorsLeft() { ERR_set_mark(); }
  ~NoErrorsLeft() { ERR_pop_to_mark(); }
  NoErrorsLeft(const NoErrorsLeft&) = delete;
  NoErrorsLeft& operator=(const NoErrorsLeft&) = delete;
};

// What is signed. The first line keeps signatures of one key for other purposes,
// and of other versions of the format, from passing as ours.
std::string signed_text(std::string_view digest) {
  return "convship1 model\nsha256=" + std::string(digest) + "\n";
}

std::span<const unsigned char> bytes_of(std::string_view text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

// A library asks nobody for a passphrase.
int no_passphrase(char*, int, int, void*) { return 0; }

Bio reader_of(const std::string& pem) {
  if (pem.size() > INT32_MAX) throw Error(ErrorCode::usage, "a key in PEM has some hundred bytes");
  return {BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free};
}

bool is_ed25519(const Key& key) { return EVP_PKEY_get_base_id(key.get()) == EVP_PKEY_ED25519; }

// The next block of PEM that is a public key; null at the end of the text.
Key next_public_key(BIO* bio) {
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  const bool found = PEM_read_bio(bio, &name, &header, &data, &size) == 1;
  const bool at_end = !found && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const unsigned char* next = data;
  Key key(nullptr, &EVP_PKEY_free);
  if (found && std::string_view(name) == PEM_STRING_PUBLIC) {
    key.reset(d2i_PUBKEY(nullptr, &next, size));
  }
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_free(data);
  if (!at_end && (!key || !is_ed25519(key))) {
    throw Error(ErrorCode::usage,
                "public_key must be PEM text of Ed25519 public keys and of nothing else; write it "
                "with 'openssl pkey -in private.pem -pubout'");
  }
  return key;
}

// Several keys in one text: while an old key is replaced, both are good.
std::vector<Key> public_keys(const std::string& pem) {
  const Bio bio = reader_of(pem);
  std::vector<Key> keys;
  while (Key key = next_public_key(bio.get())) keys.push_back(std::move(key));
  if (keys.empty()) {
    throw Error(
        ErrorCode::usage,
        "public_key must be PEM text of Ed25519 public keys ('-----BEGIN PUBLIC KEY-----'), "
        "got none");
  }
  return keys;
}

bool verifies(const Key& key,
              std::span<const unsigned char> text,
              const std::array<unsigned char, kSignatureSize>& signature) {
  const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  return context != nullptr &&
         EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), text.data(),
                          text.size()) == 1;
}

}  // namespace

bool is_signed_by(const std::string& pem, std::string_view digest, std::string_view signature) {
  const NoErrorsLeft scope;
  const std::vector<Key> keys = public_keys(pem);
  std::array<unsigned char, kSignatureSize> bytes{};
  if (!from_hexadecimal(signature, bytes)) return false;
  const std::string text = signed_text(digest);
  for (const Key& key : keys) {
    if (verifies(key, bytes_of(text), bytes)) return true;
  }
  return false;
}

std::string sign_digest(const std::string& pem, std::string_view digest) {
  const NoErrorsLeft scope;
  const Bio bio = reader_of(pem);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &no_passphrase, nullptr),
                &EVP_PKEY_free);
  if (!key || !is_ed25519(key)) {
    throw Error(ErrorCode::usage,
                "the private key must be an Ed25519 key in PEM without a passphrase; make one "
                "with 'openssl genpkey -algorithm ed25519 -out private.pem'");
  }
  const std::string text = signed_text(digest);
  std::array<unsigned char, kSignatureSize> signature{};
  std::size_t size = signature.size();
  const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, bytes_of(text).data(), text.size()) !=
          1 ||
      size != signature.size()) {
    throw Error(ErrorCode::environment, "OpenSSL cannot sign with this key");
  }
  return hexadecimal(signature);
}

}  // namespace convship::runtime
