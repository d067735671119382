/* Authentication of the registry API: the WWW-Authenticate challenge (RFC 9110 section 11.6,
 * distribution "token authentication"), Docker's credentials JSON (X-Registry-Auth), and the
 * errors of a reply. Pure: what a registry says is hostile until it has passed here, and secrets
 * never reach an error text. */
#include "image_internal.h"

#include <shoal/base/crypto.h>

enum { VALUE_MAX = 4096, AUTH_MAX = 64 << 10, REASON_MAX = 200 };

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool word_is(const char *s, size_t n, const char *word)
{
    if (n != strlen(word))
        return false;
    for (size_t i = 0; i < n; i++)
        if ((s[i] | 0x20) != word[i])
            return false;
    return true;
}

/* One value, quoted or not; returns where it ends, NULL: malformed. */
static const char *take_value(const char *p, struct sb *ret)
{
    if (*p != '"') {
        while (*p && *p != ',' && *p != ' ')
            sb_char(ret, *p++);
        return p;
    }
    for (p++; *p && *p != '"'; p++) {
        if (*p == '\\' && p[1])
            p++;
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return NULL;
        sb_char(ret, *p);
    }
    return *p == '"' ? p + 1 : NULL;
}

static bool take_params(struct image_challenge *c, const char *p)
{
    while (*p) {
        AUTO_SB struct sb value;
        sb_init(&value, VALUE_MAX);
        p += strspn(p, " ,\t");
        const char *name = p;
        while (is_token_char(*p))
            p++;
        size_t n = (size_t)(p - name);
        if (!n)
            return !*p;
        if (*p != '=')
            return true; /* the next scheme begins */
        p = take_value(p + 1, &value);
        if (!p || value.overflow)
            return false;
        if (word_is(name, n, "realm"))
            str_set(&c->realm, value.s);
        else if (word_is(name, n, "service"))
            str_set(&c->service, value.s);
        else if (word_is(name, n, "scope"))
            str_set(&c->scope, value.s);
    }
    return true;
}

bool image_challenge_parse(struct image_challenge *ret, const char *value)
{
    *ret = (struct image_challenge){ 0 };
    value += strspn(value, " \t");
    size_t n = strcspn(value, " \t,");
    if (word_is(value, n, "basic"))
        return true;
    ret->bearer = true;
    if (word_is(value, n, "bearer") && take_params(ret, value + n) && ret->realm)
        return true;
    image_challenge_clear(ret);
    return false;
}

void image_challenge_clear(struct image_challenge *c)
{
    free(c->realm);
    free(c->service);
    free(c->scope);
    *c = (struct image_challenge){ 0 };
}

static void wipe_str(char *s)
{
    if (s)
        crypto_wipe(s, strlen(s));
    free(s);
}

void image_credentials_clear(struct image_credentials *c)
{
    wipe_str(c->user);
    wipe_str(c->password);
    wipe_str(c->identity_token);
    wipe_str(c->registry_token);
    *c = (struct image_credentials){ 0 };
}

bool image_token_ok(const char *token)
{
    if (!token || !token[0] || strlen(token) > AUTH_MAX)
        return false;
    for (; *token; token++)
        if (*token <= 0x20 || *token >= 0x7f)
            return false;
    return true;
}

/* "auth": base64 of user:password. */
static bool split_auth(struct image_credentials *c, const char *auth)
{
    size_t n;
    uint8_t *raw = base64_decode(auth, strlen(auth), &n);
    AUTO_FREE char *text = raw ? xstrndup((const char *)raw, n) : NULL;
    free(raw);
    char *colon = text ? strchr(text, ':') : NULL;
    if (!colon)
        return false;
    *colon = 0;
    str_set(&c->user, text);
    str_set(&c->password, colon + 1);
    return true;
}

int image_credentials_parse(struct image_credentials *ret, const char *json, struct err *e)
{
    struct val_doc *d = NULL;
    *ret = (struct image_credentials){ 0 };
    if (!json || !json[0])
        return 0;
    if (strlen(json) > AUTH_MAX || json_parse(&d, json, strlen(json), "credentials", NULL) < 0)
        return err_set(e, E_INVALID,
                       "the registry credentials are not JSON or longer than %d bytes", AUTH_MAX);
    const struct val *root = val_root(d);
    const char *auth = val_get_str(root, "auth");
    str_set(&ret->user, val_get_str(root, "username"));
    str_set(&ret->password, val_get_str(root, "password"));
    str_set(&ret->identity_token, val_get_str(root, "identitytoken"));
    str_set(&ret->registry_token, val_get_str(root, "registrytoken"));
    bool ok = root->kind == V_MAP && (ret->user || !auth || !auth[0] || split_auth(ret, auth)) &&
              (!ret->registry_token || image_token_ok(ret->registry_token));
    val_doc_free(d);
    if (ok)
        return 0;
    image_credentials_clear(ret);
    return err_set(
        e, E_INVALID,
        "the registry credentials are malformed; want {\"username\":..., \"password\":...}");
}

char *image_basic(const struct image_credentials *c)
{
    AUTO_FREE char *plain =
        xasprintf("%s:%s", c->user ? c->user : "", c->password ? c->password : "");
    AUTO_FREE char *coded = base64_encode(plain, strlen(plain));
    return xasprintf("Basic %s", coded);
}

char *image_registry_reason(const char *body, size_t size)
{
    struct val_doc *d = NULL;
    AUTO_SB struct sb b;
    sb_init(&b, 1024);
    if (size && json_parse(&d, body, size, "reply", NULL) == 0) {
        const struct val *errors = val_get(val_root(d), "errors");
        const struct val *first =
            errors && errors->kind == V_LIST && errors->n ? errors->list[0] : NULL;
        const char *text = val_get_str(first, "message");
        text = text ? text : val_get_str(first, "code");
        text = text ? text : val_get_str(val_root(d), "details");
        for (unsigned i = 0; text && text[i] && i < REASON_MAX; i++)
            sb_char(&b, (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
        val_doc_free(d);
    }
    return sb_take(&b);
}
