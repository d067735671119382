/* The door to msgpack-c: a writer that appends to an sb; reading is mp_parse() in val.h. */
#ifndef SHOAL_BASE_MP_H
#define SHOAL_BASE_MP_H

#include <shoal/base/sb.h>
#include <stdint.h>

void mp_nil(struct sb *b);
void mp_bool(struct sb *b, bool v);
void mp_int(struct sb *b, int64_t v);
void mp_uint(struct sb *b, uint64_t v);
void mp_real(struct sb *b, double v);
void mp_str(struct sb *b, const char *s, size_t len);
void mp_bin(struct sb *b, const void *p, size_t size);
void mp_list(struct sb *b, uint32_t n); /* header; n elements follow */
void mp_map(struct sb *b, uint32_t n);  /* header; n key/value pairs follow */

#endif
