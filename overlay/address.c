/* IPv4 addresses as text and numbers, and the MAC each one implies: 02:42 and the four bytes, so that nobody
 * has to learn or tell which MAC an address has. And the names of links. */
#include "overlay_internal.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

bool address_parse(const char *text, uint32_t *ret_addr, unsigned *ret_bits)
{
    uint32_t addr = 0;
    unsigned bits = 32;
    const char *p = text;
    for (int i = 0; p && i < 4; i++) {
        unsigned v = 0, digits = 0;
        while (*p >= '0' && *p <= '9' && digits < 4) {
            v = v * 10 + (unsigned)(*p++ - '0');
            digits++;
        }
        if (!digits || digits > 3 || v > 255 || (i < 3 && *p++ != '.'))
            return false;
        addr = addr << 8 | v;
    }
    if (!p)
        return false;
    if (*p == '/') {
        uint64_t n;
        if (!str_u64(p + 1, 0, 32, &n))
            return false;
        bits = (unsigned)n;
    } else if (*p) {
        return false;
    }
    *ret_addr = addr;
    if (ret_bits)
        *ret_bits = bits;
    return true;
}

void address_format(char out[32], uint32_t addr, int bits)
{
    int n = snprintf(out, 32, "%u.%u.%u.%u", addr >> 24, addr >> 16 & 255, addr >> 8 & 255, addr & 255);
    if (bits >= 0)
        snprintf(out + n, (size_t)(32 - n), "/%d", bits);
}

void address_mac(uint8_t out[6], uint32_t addr)
{
    out[0] = 2;
    out[1] = 0x42;
    for (int i = 0; i < 4; i++)
        out[2 + i] = (uint8_t)(addr >> (24 - 8 * i));
}

void link_name(char out[16], const char *prefix, const char *a, uint32_t b)
{
    uint8_t h[32];
    char text[256];
    int n = snprintf(text, sizeof text, "%s/%u", a, b);
    crypto_blake2s(h, 5, text, (size_t)n, NULL, 0);
    snprintf(out, 16, "%s%02x%02x%02x%02x%02x", prefix, h[0], h[1], h[2], h[3], h[4]);
}
