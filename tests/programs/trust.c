/* What a program with OpenSSL asks of `base`: that the library is there and finds the certificates by its own defaults. */
#include <openssl/ssl.h>
#include <stdio.h>

int main(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_default_verify_paths(context);
    int count = sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(context)));
    printf("%d trusted %d\n", OPENSSL_VERSION_MAJOR, count > 100);
    return 0;
}
