/* Image references: [HOST[:PORT]/]PATH[:TAG][@sha256:HEX], read as Docker reads them. Source:
 * the grammar in github.com/distribution/reference (reference.go, normalize.go). The first
 * component is a host when it holds a '.' or ':' or an upper-case letter, or is "localhost";
 * else the default registry is meant, where a name without '/' lies below "library/". Only
 * sha256 digests are taken: nothing else is in use, and each algorithm more is one more to
 * attack. */
#include "image_internal.h"

#include <shoal/base/crypto.h>

#define DEFAULT_HOST "docker.io"
enum { NAME_MAX_LEN = 255, TAG_MAX_LEN = 128, HEX_LEN = 64, HOST_MAX_LEN = 253 };

static bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
static bool is_alnum(char c) { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }
static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

static bool all_hex(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_hex(s[i]))
            return false;
    return true;
}

bool image_digest_ok(const char *digest)
{
    return digest && str_starts(digest, "sha256:") && strlen(digest) == 7 + HEX_LEN &&
           all_hex(digest + 7, HEX_LEN);
}

const char *image_digest_hex(const char *digest)
{
    ASSERT(image_digest_ok(digest));
    return digest + 7;
}

char *image_digest_of(const uint8_t sum[32])
{
    char hex[HEX_LEN + 1];
    hex_encode(hex, sum, 32);
    return xasprintf("sha256:%s", hex);
}

char *image_digest_bytes(const void *p, size_t size)
{
    uint8_t sum[CRYPTO_SHA256_SIZE];
    crypto_sha256(sum, p, size);
    return image_digest_of(sum);
}

/* [a-z0-9]+ joined by '.', '_', '__' or any number of '-'. */
static bool component_ok(const char *s, size_t n)
{
    size_t i = 0;
    for (;;) {
        size_t start = i;
        while (i < n && is_lower_alnum(s[i]))
            i++;
        if (i == start)
            return false;
        if (i == n)
            return true;
        if (s[i] == '-')
            while (i < n && s[i] == '-')
                i++;
        else if (s[i] == '_')
            i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
        else if (s[i] == '.')
            i++;
        else
            return false;
    }
}

static bool path_ok(const char *s)
{
    for (;;) {
        const char *slash = strchr(s, '/');
        if (!component_ok(s, slash ? (size_t)(slash - s) : strlen(s)))
            return false;
        if (!slash)
            return true;
        s = slash + 1;
    }
}

static bool port_ok(const char *s)
{
    uint64_t port;
    return str_u64(s, 1, 65535, &port);
}

/* Domain name, IPv4 address or [IPv6 address], with or without :PORT. */
static bool host_ok(const char *s)
{
    if (strlen(s) > HOST_MAX_LEN)
        return false;
    if (s[0] == '[') {
        const char *end = strchr(s, ']');
        if (!end || end == s + 1)
            return false;
        for (const char *p = s + 1; p < end; p++)
            if (!is_hex(*p) && !(*p >= 'A' && *p <= 'F') && *p != ':')
                return false;
        return !end[1] || (end[1] == ':' && port_ok(end + 2));
    }
    const char *end = strchr(s, ':');
    size_t n = end ? (size_t)(end - s) : strlen(s);
    if (end && !port_ok(end + 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        bool edge = i == 0 || i + 1 == n || s[i - 1] == '.' || s[i + 1] == '.';
        if (!is_alnum(s[i]) && !(s[i] == '-' && !edge) &&
            !(s[i] == '.' && i && i + 1 < n && s[i - 1] != '.'))
            return false;
    }
    return n > 0;
}

static bool tag_ok(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || n > TAG_MAX_LEN || (!is_alnum(s[0]) && s[0] != '_'))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    return true;
}

/* Splits host and path; name is "HOST/PATH" or a familiar name. */
static int split_name(struct image_ref *ret, const char *name, const char *text, struct err *e)
{
    const char *slash = strchr(name, '/');
    bool has_host = false;
    if (slash) {
        size_t n = (size_t)(slash - name);
        has_host = memchr(name, '.', n) || memchr(name, ':', n) ||
                   (n == 9 && memcmp(name, "localhost", 9) == 0);
        for (size_t i = 0; i < n && !has_host; i++)
            has_host = name[i] >= 'A' && name[i] <= 'Z';
    }
    ret->host = has_host ? xstrndup(name, (size_t)(slash - name)) : xstrdup(DEFAULT_HOST);
    const char *path = has_host ? slash + 1 : name;
    if (str_equal(ret->host, "index." DEFAULT_HOST)) {
        free(ret->host);
        ret->host = xstrdup(DEFAULT_HOST);
    }
    bool short_name = str_equal(ret->host, DEFAULT_HOST) && !strchr(path, '/');
    ret->path = xasprintf("%s%s", short_name ? "library/" : "", path);
    if (!host_ok(ret->host))
        return err_set(
            e, E_INVALID,
            "invalid reference format: \"%.300s\": the host before the first '/' is malformed",
            text);
    for (const char *p = path; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            return err_set(
                e, E_INVALID,
                "invalid reference format: repository name must be lowercase: \"%.300s\"", text);
    if (!path_ok(path))
        return err_set(e, E_INVALID,
                       "invalid reference format: \"%.300s\": want [HOST/]NAME[:TAG][@sha256:HEX]",
                       text);
    if (strlen(ret->host) + 1 + strlen(ret->path) > NAME_MAX_LEN)
        return err_set(e, E_INVALID, "the repository name \"%.300s\" is longer than %d characters",
                       text, NAME_MAX_LEN);
    if (short_name && strlen(path) == HEX_LEN && all_hex(path, HEX_LEN))
        return err_set(
            e, E_INVALID,
            "invalid repository name (%.64s), cannot be 64 hex digits: that is an image id", path);
    return 0;
}

static int parse(struct image_ref *ret, char *name, const char *text, struct err *e)
{
    char *at = strchr(name, '@');
    if (at) {
        *at = 0;
        if (!image_digest_ok(at + 1))
            return err_set(
                e, E_INVALID,
                "invalid reference format: \"%.300s\": after '@' want sha256: and 64 hex digits",
                text);
        ret->digest = xstrdup(at + 1);
    }
    char *slash = strrchr(name, '/');
    char *colon = strchr(slash ? slash : name, ':');
    if (colon) {
        *colon = 0;
        if (!tag_ok(colon + 1))
            return err_set(e, E_INVALID,
                           "invalid reference format: \"%.300s\": malformed tag after ':'", text);
        ret->tag = xstrdup(colon + 1);
    }
    if (!ret->tag && !ret->digest)
        ret->tag = xstrdup("latest");
    return split_name(ret, name, text, e);
}

int image_ref_parse(struct image_ref *ret, const char *text, struct err *e)
{
    *ret = (struct image_ref){ 0 };
    if (!text || !text[0])
        return err_set(e, E_INVALID, "invalid reference format: the image reference is empty");
    if (strlen(text) > 2 * NAME_MAX_LEN + TAG_MAX_LEN + HEX_LEN)
        return err_set(e, E_INVALID,
                       "invalid reference format: the reference is too long (\"%.100s...\")", text);
    AUTO_FREE char *name = xstrdup(text);
    int r = parse(ret, name, text, e);
    if (r < 0)
        image_ref_clear(ret);
    return r;
}

void image_ref_clear(struct image_ref *r)
{
    free(r->host);
    free(r->path);
    free(r->tag);
    free(r->digest);
    *r = (struct image_ref){ 0 };
}

static char *with_suffix(const struct image_ref *r, const char *name)
{
    if (r->tag)
        return xasprintf("%s:%s", name, r->tag);
    return r->digest ? xasprintf("%s@%s", name, r->digest) : xstrdup(name);
}

char *image_ref_full(const struct image_ref *r)
{
    AUTO_FREE char *name = xasprintf("%s/%s", r->host, r->path);
    return with_suffix(r, name);
}

char *image_ref_name(const struct image_ref *r)
{
    if (!str_equal(r->host, DEFAULT_HOST))
        return xasprintf("%s/%s", r->host, r->path);
    const char *below = str_starts(r->path, "library/") ? r->path + strlen("library/") : r->path;
    return xstrdup(strchr(below, '/') ? r->path : below);
}

char *image_ref_familiar(const struct image_ref *r)
{
    AUTO_FREE char *name = image_ref_name(r);
    return with_suffix(r, name);
}
