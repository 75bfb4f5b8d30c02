#include "cluster/rpc/tls.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>

#include "proto/base/check.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

constexpr const char* kIdentity = "weft-agent";

int key_index() {
  static const int index = SSL_CTX_get_ex_new_index(
      0, nullptr, nullptr, nullptr,
      [](void*, void* key, CRYPTO_EX_DATA*, int, long, void*) {  // NOLINT: OpenSSL's signature
        delete static_cast<Sha256Digest*>(key);
      });
  return index;
}

unsigned int copy_key(SSL* ssl, unsigned char* key, unsigned int size) {
  const auto* digest =
      static_cast<const Sha256Digest*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), key_index()));
  if (digest == nullptr || size < digest->size()) return 0;
  std::copy(digest->begin(), digest->end(), key);
  return static_cast<unsigned int>(digest->size());
}

unsigned int client_key(SSL* ssl, const char*, char* identity, unsigned int identity_size,
                        unsigned char* key, unsigned int key_size) {
  if (identity_size <= std::strlen(kIdentity)) return 0;
  std::strcpy(identity, kIdentity);  // NOLINT: the size was checked
  return copy_key(ssl, key, key_size);
}

unsigned int server_key(SSL* ssl, const char* identity, unsigned char* key, unsigned int key_size) {
  if (std::strcmp(identity, kIdentity) != 0) return 0;
  return copy_key(ssl, key, key_size);
}

}  // namespace

std::shared_ptr<boost::asio::ssl::context> tls_context(TlsSide side, const std::string& secret) {
  using boost::asio::ssl::context;
  auto made = std::make_shared<context>(side == TlsSide::kServer ? context::tls_server
                                                                 : context::tls_client);
  SSL_CTX* raw = made->native_handle();
  WEFT_CHECK(SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION) == 1);
  WEFT_CHECK(SSL_CTX_set_ciphersuites(raw, "TLS_AES_128_GCM_SHA256") == 1);
  SSL_CTX_set_num_tickets(raw, 0);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  auto* key = new Sha256Digest(hmac_sha256(secret, "weft agent channel 1"));
  WEFT_CHECK(SSL_CTX_set_ex_data(raw, key_index(), key) == 1);
  if (side == TlsSide::kServer) {
    SSL_CTX_set_psk_server_callback(raw, server_key);
  } else {
    SSL_CTX_set_psk_client_callback(raw, client_key);
    // No certificates: the key is the proof, and TLS 1.3 without it fails for lack of one.
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
  }
  return made;
}

}  // namespace weft
