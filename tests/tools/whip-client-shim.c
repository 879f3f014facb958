/*
 * Preloaded into Debian 12's whip-client, which two faults of its libraries keep from running or from connecting:
 *
 *  - It is linked with libsoup 2; its webrtcbin loads libnice, that loads gupnp-igd, and that loads libsoup 3, which ends
 *    a process that has libsoup 2 ("Using libsoup2 and libsoup3 in the same process is not supported"). This library
 *    has gupnp-igd's name and the functions that libnice calls, and does nothing of UPnP.
 *  - GStreamer 1.22 makes an RSA certificate for DTLS; str0m's DTLS takes ECDSA only. The key becomes one of P-256.
 *
 * Nothing of the client's WHIP, SDP, ICE or RTP is touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

void *gupnp_simple_igd_thread_new(void) { return 0; }
unsigned long gupnp_simple_igd_get_type(void) { return 20UL << 2; /* G_TYPE_OBJECT */ }
void gupnp_simple_igd_add_port(void) {}
void gupnp_simple_igd_remove_port_local(void) {}

enum { RSA_KEY = 6, EC_KEY = 408 };

int EVP_PKEY_assign(void *pkey, int type, void *key) {
	void *crypto = dlopen("libcrypto.so.3", RTLD_NOW);
	int (*assign)(void *, int, void *) = dlsym(crypto, "EVP_PKEY_assign");
	if (type != RSA_KEY) return assign(pkey, type, key);
	void *(*generate)(void *, const char *, const char *, ...) = dlsym(crypto, "EVP_PKEY_Q_keygen");
	void *(*ec_of)(void *) = dlsym(crypto, "EVP_PKEY_get1_EC_KEY");
	return assign(pkey, EC_KEY, ec_of(generate(0, 0, "EC", "P-256")));
}
