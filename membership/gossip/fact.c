/* Facts: what one node signed. The form on the wire is what is signed, after a label and before the signature. */
#include "core.h"
#include <stdio.h>

static const char label[] = "shoal gossip fact 1";
enum { LABEL_BYTES = sizeof label - 1 };

static size_t write_body(const struct gossip_table *t, const struct gossip_fact *f, uint8_t *out)
{
    size_t n = 0;
    out[n++] = (uint8_t)f->kind;
    put_be(out + n, t->v[f->subject].tag, 8);
    put_be(out + n + 8, f->incarnation, 8);
    n += 16;
    if (f->kind == FACT_ALERT) {
        put_be(out + n, t->v[f->signer].tag, 8);
        return n + 8;
    }
    size_t len = strlen(f->addr);
    put_be(out + n, f->port, 2);
    out[n + 2] = (uint8_t)len;
    memcpy(out + n + 3, f->addr, len);
    return n + 3 + len;
}

static size_t signed_bytes(const struct gossip_table *t, const struct gossip_fact *f, uint8_t out[LABEL_BYTES + FACT_MAX_BYTES])
{
    memcpy(out, label, LABEL_BYTES);
    return LABEL_BYTES + write_body(t, f, out + LABEL_BYTES);
}

size_t gossip_fact_write(const struct gossip_table *t, const struct gossip_fact *f, uint8_t *out)
{
    size_t n = write_body(t, f, out);
    memcpy(out + n, f->signature, 64);
    return n + 64;
}

bool gossip_fact_read(const struct gossip_table *t, const uint8_t **pp, const uint8_t *end, struct gossip_fact *ret)
{
    const uint8_t *p = *pp;
    size_t left = (size_t)(end - p), need = 17 + 64 + (left && p[0] == FACT_ALERT ? 8 : 3);
    if (left < need || p[0] < FACT_ALIVE || p[0] > FACT_ALERT)
        return false;
    *ret = (struct gossip_fact){ .kind = p[0], .subject = gossip_table_by_tag(t, get_be(p + 1, 8)), .incarnation = get_be(p + 9, 8) };
    p += 17;
    if (ret->kind == FACT_ALERT) {
        ret->signer = gossip_table_by_tag(t, get_be(p, 8));
        p += 8;
    } else {
        size_t len = p[2];
        if (len >= GOSSIP_ADDR_MAX || left < need + len || memchr(p + 3, 0, len))
            return false;
        ret->signer = ret->subject;
        ret->port = (uint16_t)get_be(p, 2);
        memcpy(ret->addr, p + 3, len);
        p += 3 + len;
    }
    memcpy(ret->signature, p, 64);
    ret->hash = (uint32_t)get_be(p, 4);
    *pp = p + 64;
    return true;
}

static struct gossip_fact *keep(struct gossip_table *t, const struct gossip_fact *f)
{
    struct gossip_fact *k = xmemdup(f, sizeof *f);
    k->n_refs = 1;
    map_put_n(&t->facts, k->signature, 64, k);
    return k;
}

static bool same(const struct gossip_fact *a, const struct gossip_fact *b)
{
    return a->kind == b->kind && a->subject == b->subject && a->signer == b->signer && a->incarnation == b->incarnation &&
           a->port == b->port && str_equal(a->addr, b->addr);
}

struct gossip_fact *gossip_fact_keep(struct gossip_core *g, const struct gossip_fact *f)
{
    uint8_t bytes[LABEL_BYTES + FACT_MAX_BYTES];
    struct gossip_fact *k = map_find_n(&g->t->facts, f->signature, 64);
    if (k && same(k, f)) /* a signature under other words proves nothing */
        return k->n_refs++, k;
    size_t n = signed_bytes(g->t, f, bytes);
    if (k || (GOSSIP_BUG != 6 && !g->out.verify(g->out.arg, &g->t->v[f->signer], f->signature, bytes, n)))
        return NULL;
    return keep(g->t, f);
}

struct gossip_fact *gossip_fact_make(struct gossip_core *g, enum fact_kind kind, uint32_t subject, uint64_t incarnation)
{
    uint8_t bytes[LABEL_BYTES + FACT_MAX_BYTES];
    struct gossip_fact f = { .kind = kind, .subject = subject, .signer = g->self, .incarnation = incarnation };
    if (kind != FACT_ALERT) {
        snprintf(f.addr, sizeof f.addr, "%s", g->addr);
        f.port = g->cfg.port;
    }
    size_t n = signed_bytes(g->t, &f, bytes);
    g->out.sign(g->out.arg, f.signature, bytes, n);
    f.hash = (uint32_t)get_be(f.signature, 4);
    struct gossip_fact *k = map_find_n(&g->t->facts, f.signature, 64);
    return k ? (k->n_refs++, k) : keep(g->t, &f);
}

void gossip_fact_unref(struct gossip_table *t, struct gossip_fact *f)
{
    if (!f || --f->n_refs)
        return;
    map_remove_n(&t->facts, f->signature, 64);
    free(f);
}
