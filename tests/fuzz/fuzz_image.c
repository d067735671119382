/* What registries and archives say: references, manifests, configurations, challenges, credentials, errors, import
 * lines. Oracles: a reference that is read is read again from its full and its familiar form to the same; bounds hold;
 * refusals have a sentence and give nothing. The first byte chooses. */
#include "fuzz.h"

#include "image_internal.h"

static bool same_strs(const struct strs *a, const struct strs *b)
{
    bool same = a->n == b->n;
    for (uint32_t i = 0; same && i < a->n; i++)
        same = str_equal(a->v[i], b->v[i]);
    return same;
}

static bool same_ref(const struct image_ref *a, const struct image_ref *b)
{
    return str_equal(a->host, b->host) && str_equal(a->path, b->path) &&
           (a->tag ? str_equal(a->tag, b->tag) : !b->tag && str_equal(a->digest, b->digest));
}

static void reference(const char *text, size_t size)
{
    struct image_ref r = { 0 }, back = { 0 };
    struct err e = { 0 };
    if (image_ref_parse(&r, text, &e) < 0) {
        ASSERT(e.text[0] && !r.host && !r.path && !r.tag && !r.digest);
        return;
    }
    ASSERT(r.host && r.path && (r.tag || image_digest_ok(r.digest)));
    AUTO_FREE char *full = image_ref_full(&r), *familiar = image_ref_familiar(&r), *name = image_ref_name(&r);
    const char *const forms[] = { full, familiar };
    ASSERT(str_starts(familiar, name));
    for (size_t i = 0; i < ARRAY_N(forms); i++) {
        int rc = image_ref_parse(&back, forms[i], &e);
        if (rc < 0 || !same_ref(&r, &back))
            fprintf(stderr, "%s -> %s: %s\n", text, forms[i], e.text);
        ASSERT(rc == 0 && same_ref(&r, &back));
        image_ref_clear(&back);
    }
    ASSERT(!strpbrk(full, " \t\n/.") || !strstr(full, "/../")); /* it becomes part of a URL */
    image_ref_clear(&r);
}

static void manifest(const char *text, size_t size)
{
    struct image_manifest m = { 0 };
    struct err e = { 0 };
    if (image_manifest_parse(&m, text, size, "application/vnd.oci.image.index.v1+json", &e) < 0) {
        ASSERT(e.text[0] && !m.v && !m.media_type);
        return;
    }
    ASSERT(m.is_index || (m.n <= IMAGE_LAYERS_MAX && image_digest_ok(m.config.digest)));
    for (uint32_t i = 0; i < m.n; i++)
        ASSERT(image_digest_ok(m.v[i].digest) && m.v[i].size >= 0);
    struct image_desc copy = { 0 };
    if (m.n)
        image_desc_copy(&copy, m.is_index && image_manifest_choose(&m) ? image_manifest_choose(&m) : &m.v[0]);
    image_desc_clear(&copy);
    image_manifest_clear(&m);
}

static void configuration(const char *text, size_t size)
{
    struct image_config c = { 0 }, back = { 0 };
    struct err e = { 0 };
    if (image_config_parse(&c, text, size, &e) < 0) {
        ASSERT(e.text[0] && !c.raw);
        return;
    }
    for (uint32_t i = 0; i < c.diff_ids.n; i++)
        ASSERT(image_digest_ok(c.diff_ids.v[i]));
    if (c.diff_ids.n == 1) {
        AUTO_FREE char *json = image_config_write(&c, "2024-01-02T03:04:05Z", "");
        int rc = image_config_parse(&back, json, strlen(json), &e);
        ASSERT(rc == 0 && same_strs(&c.env, &back.env) && same_strs(&c.cmd, &back.cmd) &&
               same_strs(&c.entrypoint, &back.entrypoint) && same_strs(&c.diff_ids, &back.diff_ids));
        image_config_clear(&back);
    }
    image_config_clear(&c);
}

static void registry(const char *text, size_t size)
{
    struct image_challenge c = { 0 };
    if (image_challenge_parse(&c, text)) {
        ASSERT(!c.bearer || c.realm);
        image_challenge_clear(&c);
    }
    AUTO_FREE char *reason = image_registry_reason(text, size);
    for (const char *p = reason; *p; p++)
        ASSERT((unsigned char)*p >= 0x20 && *p != 0x7f);
    if (image_token_ok(text))
        ASSERT(*text && !strpbrk(text, " \r\n"));
}

static void credentials(const char *text, size_t size)
{
    struct image_credentials c = { 0 };
    struct err e = { 0 };
    if (image_credentials_parse(&c, text, &e) < 0) {
        ASSERT(e.text[0]);
        return;
    }
    if (c.user && c.password) {
        AUTO_FREE char *basic = image_basic(&c);
        ASSERT(str_starts(basic, "Basic ") && !strpbrk(basic, "\r\n"));
    }
    image_credentials_clear(&c);
}

static void changes(const char *text, size_t size)
{
    const char *const lines[] = { text, NULL };
    struct image_config c = { 0 };
    struct err e = { 0 };
    if (image_changes_apply(&c, lines, &e) < 0)
        ASSERT(e.text[0]);
    image_config_clear(&c);
}

static void (*const forms[])(const char *text, size_t size) = { reference, manifest, configuration, registry, credentials, changes };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (!size)
        return 0;
    AUTO_FREE char *text = xcalloc(size, 1);
    memcpy(text, p + 1, size - 1);
    forms[p[0] % ARRAY_N(forms)](text, size - 1);
    return 0;
}

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const char *const seeds[][3] = {
    { "busybox", "registry.example:5000/a/b_c.d-e:v1.2_x@" DIGEST, "localhost/x@" DIGEST },
    { "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":"
      "\"application/vnd.oci.image.config.v1+json\",\"digest\":\"" DIGEST "\",\"size\":7},\"layers\":[{\"mediaType\":"
      "\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"" DIGEST "\",\"size\":9}]}",
      "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"" DIGEST
      "\",\"size\":7,\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"},\"annotations\":{"
      "\"org.opencontainers.image.ref.name\":\"latest\"}}]}",
      "{\"schemaVersion\":2,\"manifests\":[]}" },
    { "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=b\"],\"Cmd\":[\"x\"],\"ExposedPorts\":{\"80/tcp\":{}},"
      "\"Healthcheck\":{\"Test\":[\"CMD\",\"t\"],\"Interval\":1000,\"Retries\":3}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST "\"]}}",
      "{\"os\":\"linux\",\"architecture\":\"arm64\",\"rootfs\":{\"diff_ids\":[]}}", "{}" },
    { "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull\"", "Basic realm=\"x\\\"y\"",
      "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"no\\nway\"}]}" },
    { "{\"username\":\"u\",\"password\":\"p\"}", "{\"identitytoken\":\"t\"}", "{\"auth\":\"dTpw\",\"serveraddress\":\"h\"}" },
    { "CMD [\"a\", \"b\"]", "ENV A=\"b c\" D=e", "HEALTHCHECK --interval=5s CMD x" },
};

const unsigned fuzz_rounds = 3000;
const char *const fuzz_words[] = { "\"", "{", "}", "[", "]", ",", ":", "@", "/", "//", "..", "\\", "=", "null", "true", "-1", "1e99",
                                   "sha256:", "sha512:", DIGEST, "\"digest\":\"\"", "\"size\":-1", "\"size\":9223372036854775807",
                                   "Bearer ", "Basic ", "Negotiate ", "realm=", "\r\n", "\x7f", "EXPOSE 80", "USER ", "LABEL a=", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    unsigned form = (unsigned)rng_below(g, ARRAY_N(forms));
    sb_char(b, (char)form);
    sb_str(b, seeds[form][rng_below(g, 3)]);
}
