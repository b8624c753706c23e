// The optional Ed25519 signature of a shipped file.
#pragma once

#include <string>
#include <string_view>

namespace convship::runtime {

// Whether one of the public keys in `pem` made `signature` (hexadecimal) over a
// file with this digest. Throws Error(usage) where `pem` holds no such keys.
bool is_signed_by(const std::string& pem, std::string_view digest, std::string_view signature);

// The signature, hexadecimal, of a file with this digest. Throws Error(usage)
// where `pem` holds no private key.
std::string sign_digest(const std::string& pem, std::string_view digest);

}  // namespace convship::runtime
