/* Join tokens: "SHOAL-1-<pin>-<secret>". The pin is SHA-256 of the cluster's public key, so the first contact
 * is authenticated by the joiner; the secret authenticates the joiner. Which role it gives is the manager's
 * knowledge, not the token's text. */
#include "manager_internal.h"
#include <stdio.h>

enum { PIN_DIGITS = 64, SECRET_DIGITS = 25 };

static void pin_of(char out[PIN_DIGITS + 1], const uint8_t ca_public[32])
{
    uint8_t hash[32];
    crypto_sha256(hash, ca_public, 32);
    hex_encode(out, hash, sizeof hash);
}

void token_make(char out[128], const uint8_t ca_public[32])
{
    char pin[PIN_DIGITS + 1], secret[26];
    pin_of(pin, ca_public);
    id_random(secret);
    snprintf(out, 128, "SHOAL-1-%s-%s", pin, secret);
}

bool token_is_well_formed(const char *token)
{
    return token && strlen(token) == 8 + PIN_DIGITS + 1 + SECRET_DIGITS &&
           str_starts(token, "SHOAL-1-") && token[8 + PIN_DIGITS] == '-' &&
           strspn(token + 8, "0123456789abcdef") == PIN_DIGITS;
}

bool token_pins(const char *token, const uint8_t ca_public[32])
{
    char pin[PIN_DIGITS + 1];
    pin_of(pin, ca_public);
    return token_is_well_formed(token) && crypto_equal(token + 8, pin, PIN_DIGITS);
}
