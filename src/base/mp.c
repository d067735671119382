/* msgpack: msgpack-c's packer writes; the reader is our own, because msgpack-c 4 allocates what an array
 * header claims. Here every claimed element must still fit into the bytes left (each takes at least one),
 * over all levels together, before anything is allocated for it. */
#include "val_internal.h"
#include <msgpack.h>
#include <shoal/base/mp.h>

static int append(void *data, const char *p, size_t size)
{
    sb_add(data, p, size);
    return 0;
}

static msgpack_packer packer(struct sb *b)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, b, append);
    return pk;
}

void mp_nil(struct sb *b)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_nil(&pk);
}

void mp_bool(struct sb *b, bool v)
{
    msgpack_packer pk = packer(b);
    if (v)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
}

void mp_int(struct sb *b, int64_t v)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_int64(&pk, v);
}

void mp_uint(struct sb *b, uint64_t v)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_uint64(&pk, v);
}

void mp_real(struct sb *b, double v)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_double(&pk, v);
}

void mp_str(struct sb *b, const char *s, size_t len)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_str(&pk, len);
    msgpack_pack_str_body(&pk, s, len);
}

void mp_bin(struct sb *b, const void *p, size_t size)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_bin(&pk, size);
    msgpack_pack_bin_body(&pk, p, size);
}

void mp_list(struct sb *b, uint32_t n)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_array(&pk, n);
}

void mp_map(struct sb *b, uint32_t n)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_map(&pk, n);
}

void mp_write(struct sb *b, const struct val *v)
{
    switch (v->kind) {
    case V_NULL: mp_nil(b); break;
    case V_BOOL: mp_bool(b, v->b); break;
    case V_INT: mp_int(b, v->i); break;
    case V_UINT: mp_uint(b, v->u); break;
    case V_REAL: mp_real(b, v->r); break;
    case V_STR: mp_str(b, v->s, v->n); break;
    case V_BYTES: mp_bin(b, v->s, v->n); break;
    case V_LIST:
        mp_list(b, v->n);
        for (uint32_t i = 0; i < v->n; i++)
            mp_write(b, v->list[i]);
        break;
    case V_MAP:
        mp_map(b, v->n);
        for (uint32_t i = 0; i < v->n; i++) {
            mp_write(b, v->map[i].key);
            mp_write(b, v->map[i].value);
        }
        break;
    }
}

struct reader {
    struct val_doc *d;
    const uint8_t *p;
    size_t left;
    size_t promised; /* elements claimed by open lists and maps and not yet read */
    unsigned depth;
};

static bool get_be(struct reader *r, unsigned n, uint64_t *ret)
{
    uint64_t v = 0;
    if (r->left < n)
        return false;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | *r->p++;
    r->left -= n;
    *ret = v;
    return true;
}

static struct val *read_val(struct reader *r);

static struct val *read_text(struct reader *r, enum val_kind kind, uint64_t size)
{
    if (size > r->left)
        return NULL;
    const void *p = r->p;
    r->p += size;
    r->left -= (size_t)size;
    return kind == V_STR ? val_str_n(r->d, p, (size_t)size) : val_bytes(r->d, p, (size_t)size);
}

static bool promise(struct reader *r, uint64_t elements)
{
    if (elements > r->left || r->promised + elements > r->left || r->depth >= 32)
        return false;
    r->promised += (size_t)elements;
    return true;
}

static struct val *read_list(struct reader *r, uint64_t n)
{
    if (!promise(r, n))
        return NULL;
    struct val *v = val_list(r->d);
    r->depth++;
    for (uint64_t i = 0; i < n; i++) {
        r->promised--;
        struct val *item = read_val(r);
        if (!item)
            return NULL;
        val_push(r->d, v, item);
    }
    r->depth--;
    return v;
}

static struct val *read_map(struct reader *r, uint64_t n)
{
    if (!promise(r, n * 2))
        return NULL;
    struct val *v = val_map(r->d);
    r->depth++;
    for (uint64_t i = 0; i < n; i++) {
        r->promised--;
        struct val *key = read_val(r);
        if (!key || (key->kind != V_STR && key->kind != V_INT))
            return NULL;
        r->promised--;
        struct val *value = read_val(r);
        if (!value)
            return NULL;
        val_add_pair(r->d, v, key, value);
    }
    r->depth--;
    return v;
}

static struct val *read_number(struct reader *r, uint8_t t)
{
    uint64_t u;
    switch (t) {
    case 0xca: {
        uint32_t bits;
        float f;
        if (!get_be(r, 4, &u))
            return NULL;
        bits = (uint32_t)u;
        memcpy(&f, &bits, sizeof f);
        return val_real(r->d, (double)f);
    }
    case 0xcb: {
        double v;
        if (!get_be(r, 8, &u))
            return NULL;
        memcpy(&v, &u, sizeof v);
        return val_real(r->d, v);
    }
    case 0xcc: case 0xcd: case 0xce: case 0xcf:
        return get_be(r, 1U << (t - 0xcc), &u) ? val_uint(r->d, u) : NULL;
    case 0xd0: return get_be(r, 1, &u) ? val_int(r->d, (int8_t)u) : NULL;
    case 0xd1: return get_be(r, 2, &u) ? val_int(r->d, (int16_t)u) : NULL;
    case 0xd2: return get_be(r, 4, &u) ? val_int(r->d, (int32_t)u) : NULL;
    case 0xd3: return get_be(r, 8, &u) ? val_int(r->d, (int64_t)u) : NULL;
    default: return NULL;
    }
}

static struct val *read_val(struct reader *r)
{
    uint64_t n;
    if (!get_be(r, 1, &n) || val_doc_size(r->d) > VAL_DOC_MAX_BYTES)
        return NULL;
    uint8_t t = (uint8_t)n;
    if (t < 0x80)
        return val_int(r->d, t);
    if (t >= 0xe0)
        return val_int(r->d, (int8_t)t);
    if (t < 0x90)
        return read_map(r, t & 15);
    if (t < 0xa0)
        return read_list(r, t & 15);
    if (t < 0xc0)
        return read_text(r, V_STR, t & 31);
    switch (t) {
    case 0xc0: return val_null(r->d);
    case 0xc2: return val_bool(r->d, false);
    case 0xc3: return val_bool(r->d, true);
    case 0xc4: case 0xc5: case 0xc6:
        return get_be(r, 1U << (t - 0xc4), &n) ? read_text(r, V_BYTES, n) : NULL;
    case 0xd9: case 0xda: case 0xdb:
        return get_be(r, 1U << (t - 0xd9), &n) ? read_text(r, V_STR, n) : NULL;
    case 0xdc: case 0xdd:
        return get_be(r, 2U << (t - 0xdc), &n) ? read_list(r, n) : NULL;
    case 0xde: case 0xdf:
        return get_be(r, 2U << (t - 0xde), &n) ? read_map(r, n) : NULL;
    default: return read_number(r, t);
    }
}

int mp_parse(struct val_doc **ret, const void *p, size_t size, struct err *e)
{
    struct reader r = { .d = val_doc_new(), .p = p, .left = size };
    struct val *root = read_val(&r);
    if (!root || r.left) {
        val_doc_free(r.d);
        return err_set(e, E_CORRUPT, root ? "%zu bytes after the end of a msgpack value"
                                          : "malformed msgpack at byte %zu",
                       root ? r.left : (size_t)(r.p - (const uint8_t *)p));
    }
    val_set_root(r.d, root);
    *ret = r.d;
    return 0;
}
