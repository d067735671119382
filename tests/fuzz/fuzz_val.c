/* The parsers under everything: JSON, YAML and msgpack to the capped tree. Oracles: what parses is written and parsed
 * again to the same tree, and written the same again; what does not has a sentence. The first byte chooses. */
#include "fuzz.h"

#include <math.h>
#include <shoal/base/val.h>

typedef int parse_fn(struct val_doc **ret, const void *p, size_t size, struct err *e);

static int parse_json(struct val_doc **ret, const void *p, size_t size, struct err *e)
{
    return json_parse(ret, p, size, "fuzz", e);
}

static int parse_yaml(struct val_doc **ret, const void *p, size_t size, struct err *e)
{
    return yaml_parse(ret, p, size, "fuzz", e);
}

static void write_json(struct sb *b, const struct val *v)
{
    json_write(b, v, 0);
}

static const struct { parse_fn *parse; void (*write)(struct sb *b, const struct val *v); } forms[] = {
    { parse_json, write_json }, { parse_yaml, yaml_write }, { mp_parse, mp_write } };

/* Has it what its form cannot write: bytes outside msgpack, numbers that JSON lacks, keys that are no text? */
static bool is_foreign(const struct val *v, unsigned form)
{
    if (form < 2 && (v->kind == V_BYTES || (v->kind == V_REAL && !isfinite(v->r))))
        return true;
    if (v->kind == V_REAL && isnan(v->r)) /* equals nothing, not even itself */
        return true;
    for (uint32_t i = 0; v->kind == V_LIST && i < v->n; i++)
        if (is_foreign(v->list[i], form))
            return true;
    for (uint32_t i = 0; v->kind == V_MAP && i < v->n; i++)
        if (is_foreign(v->map[i].value, form) || v->map[i].key->kind != V_STR)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    struct val_doc *d = NULL, *again = NULL;
    struct err e = { 0 };
    if (!size)
        return 0;
    unsigned form = p[0] % ARRAY_N(forms);
    if (forms[form].parse(&d, p + 1, size - 1, &e) < 0) {
        ASSERT(!d && e.text[0]);
        return 0;
    }
    if (!is_foreign(val_root(d), form)) {
        AUTO_SB struct sb a, b;
        sb_init(&a, 0);
        sb_init(&b, 0);
        forms[form].write(&a, val_root(d));
        int rc = forms[form].parse(&again, a.s, a.len, &e);
        if (rc < 0)
            fprintf(stderr, "%s in: %s\n", e.text, a.s);
        ASSERT(rc == 0 && val_equal(val_root(d), val_root(again)));
        forms[form].write(&b, val_root(again));
        ASSERT(a.len == b.len && memcmp(a.s, b.s, a.len) == 0);
        val_doc_free(again);
    }
    val_doc_free(d);
    return 0;
}

const unsigned fuzz_rounds = 3000;
const char *const fuzz_words[] = { "{", "}", "[", "]", ":", ",", "\"", "- ", "? ", "|\n", ">-\n", "&a ", "*a", "<<: ", "!!str ",
                                   "!!binary ", "# ", "---\n", "...\n", "%YAML 1.2\n", "\\u0000", "\\ud800", "\\udc00", "\xff",
                                   "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "1e999", "-0", "0x7f", "0o17", ".inf", ".nan",
                                   "18446744073709551616", "9223372036854775808", "-9223372036854775809", "null", "~", "true",
                                   "yes", "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\xcf", "\xd3",
                                   "\xcb\x7f\xf0", "\t", "'", "\xe2\x80\xa8", NULL };

/* JSON has no number above INT64_MAX here. */
static struct val *random_val(struct rng *g, struct val_doc *d, unsigned form, unsigned depth)
{
    static const char *const texts[] = { "", "a", "b c", "- x", "yes", "null", "1", "1.5", "~", "#", "a: b", "\n", " lead",
                                         "trail ", "é", "\"q\"", "'", "two\nlines\n", "\t", "0x10", "*a", "&b", "!c", "{", "%" };
    struct val *v;
    switch (rng_below(g, depth < 4 ? 9 : 6)) {
    case 0: return val_null(d);
    case 1: return val_bool(d, rng_chance(g, 500));
    case 2: return val_int(d, (int64_t)(rng_u64(g) >> rng_below(g, 64)) * (rng_chance(g, 500) ? 1 : -1));
    case 3: return form == 0 ? val_null(d) : val_uint(d, UINT64_MAX - rng_below(g, 100));
    case 4: return val_real(d, (double)(int64_t)rng_u64(g) / (double)(1 + rng_below(g, 1u << 30)));
    case 5: return val_str(d, texts[rng_below(g, ARRAY_N(texts))]);
    case 6:
        v = val_list(d);
        for (uint64_t n = rng_below(g, 5); n > 0; n--)
            val_push(d, v, random_val(g, d, form, depth + 1));
        return v;
    default:
        v = val_map(d);
        for (uint64_t n = rng_below(g, 5); n > 0; n--)
            val_set(d, v, texts[rng_below(g, ARRAY_N(texts))], random_val(g, d, form, depth + 1));
        return v;
    }
}

void fuzz_sample(struct rng *g, struct sb *b)
{
    unsigned form = (unsigned)rng_below(g, ARRAY_N(forms));
    struct val_doc *d = val_doc_new(), *back = NULL;
    struct val *v = random_val(g, d, form, 0);
    struct err e = { 0 };
    sb_char(b, (char)form);
    forms[form].write(b, v);
    int rc = forms[form].parse(&back, b->s + 1, b->len - 1, &e);
    if (rc < 0 || !val_equal(v, val_root(back)))
        fprintf(stderr, "form %u: %s: %s\n", form, e.text, b->s + 1);
    ASSERT(rc == 0 && val_equal(v, val_root(back)));
    val_doc_free(back);
    val_doc_free(d);
}
