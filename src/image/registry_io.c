/* The registry API, version 2, as a client (OCI distribution-spec "Pull"), over libcurl,
 * blocking: a pull has threads of its own. Plain HTTP only where the operator named the host
 * insecure. Credentials go to the registry or its token realm and nowhere else: libcurl drops
 * the header when a redirect leaves the host. What comes is bounded by what was announced, and
 * by a fixed size before anything was. */
#include "image_internal.h"

#include <curl/curl.h>
#include <pthread.h>
#include <shoal/base/crypto.h>
#include <stdio.h>
#include <strings.h>

enum {
    ATTEMPTS = 3,
    BACKOFF_MS = 250,
    CONNECT_MS = 15000,
    QUICK_MS = 3000,
    STALL_S = 60,
    TOKEN_MAX = 64 << 10,
    REASON_BODY = 16 << 10,
    CHALLENGE_MAX = 8 << 10
};

struct image_registry {
    char *base, *path, *familiar, *host;
    bool insecure, quick, authorized; /* authorized: the challenge was answered once */
    char *authorization;       /* "Bearer ..." or "Basic ..." */
    struct image_credentials cred;
    bool (*wait)(void *arg, int ms);
    bool (*cancelled)(void *arg);
    void *arg;
    CURL *curl;
};

/* One exchange. */
struct call {
    struct image_registry *r;
    struct image_blob_writer *blob; /* where a good body goes, or: */
    struct sb text;                 /* a small one; and the body of an error */
    size_t text_max;
    void (*progress)(void *arg, int64_t current);
    void *arg;
    long status;
    char *challenge, *content_type;
    struct err sink;                /* why the body was not taken */
};

static void init_once(void)
{
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

int image_registry_open(struct image_registry **ret, const struct image_registry_config *cfg,
                        struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct image_credentials cred;
    pthread_once(&once, init_once);
    int code = image_credentials_parse(&cred, cfg->auth, e);
    if (code < 0)
        return code;
    bool dock = str_equal(cfg->host, "docker.io"); /* its API answers under another name */
    struct image_registry *r = xnew(struct image_registry);
    *r = (struct image_registry){
        .base = xasprintf("%s://%s%s", cfg->insecure ? "http" : "https", dock ? "registry-1." : "",
                          cfg->host),
        .path = xstrdup(cfg->path),
        .familiar = xstrdup(cfg->familiar),
        .host = xstrdup(cfg->host),
        .insecure = cfg->insecure,
        .quick = cfg->quick,
        .cred = cred,
        .wait = cfg->wait,
        .cancelled = cfg->cancelled,
        .arg = cfg->arg,
        .authorization = xstrdup(cfg->authorization),
        .curl = curl_easy_init(),
    };
    if (!r->authorization && cred.registry_token)
        r->authorization = xasprintf("Bearer %s", cred.registry_token);
    *ret = r;
    if (r->curl)
        return 0;
    image_registry_close(r);
    return err_set(e, E_NO_MEMORY, "libcurl did not start");
}

static void set_authorization(struct image_registry *r, char *value /* taken */)
{
    if (r->authorization)
        crypto_wipe(r->authorization, strlen(r->authorization));
    free(r->authorization);
    r->authorization = value;
}

const char *image_registry_authorization(const struct image_registry *r)
{
    return r->authorization;
}

void image_registry_close(struct image_registry *r)
{
    if (!r)
        return;
    if (r->curl)
        curl_easy_cleanup(r->curl);
    set_authorization(r, NULL);
    image_credentials_clear(&r->cred);
    free(r->base);
    free(r->path);
    free(r->familiar);
    free(r->host);
    free(r);
}

/* ---- one exchange ---- */

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    size_t whole = n *= size;
    while (n && (p[n - 1] == '\r' || p[n - 1] == '\n' || p[n - 1] == ' '))
        n--;
    if (n > 5 && memcmp(p, "HTTP/", 5) == 0) { /* a new reply: after a redirect */
        free(TAKE(c->challenge));
        free(TAKE(c->content_type));
    } else if (n > 17 && n < CHALLENGE_MAX && strncasecmp(p, "www-authenticate:", 17) == 0) {
        struct image_challenge ch;
        AUTO_FREE char *value = xstrndup(p + 17, n - 17);
        bool known = image_challenge_parse(&ch, value);
        if (known && (!c->challenge || ch.bearer)) { /* Bearer goes before Basic */
            free(c->challenge);
            c->challenge = TAKE(value);
        }
        image_challenge_clear(&ch);
    } else if (n > 13 && n < CHALLENGE_MAX && strncasecmp(p, "content-type:", 13) == 0) {
        size_t skip = 13;
        while (skip < n && p[skip] == ' ')
            skip++;
        free(c->content_type);
        c->content_type = xstrndup(p + skip, n - skip);
        c->content_type[strcspn(c->content_type, "; ")] = 0;
    }
    return whole;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    long status = 0;
    n *= size;
    curl_easy_getinfo(c->r->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299) {
        sb_add(&c->text, p, MIN(n, REASON_BODY - MIN(c->text.len, (size_t)REASON_BODY)));
        return n;
    }
    if (c->blob) {
        if (image_blob_add(c->blob, p, n, &c->sink) < 0)
            return 0;
        if (c->progress)
            c->progress(c->arg, image_blob_size(c->blob));
        return n;
    }
    if (n > c->text_max - MIN(c->text.len, c->text_max)) {
        (void)err_set(&c->sink, E_TOO_BIG, "the reply is longer than %zu bytes", c->text_max);
        return 0;
    }
    sb_add(&c->text, p, n);
    return n;
}

static int on_tick(void *arg, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t f)
{
    const struct image_registry *r = arg;
    return r->cancelled && r->cancelled(r->arg);
}

static void setup(struct call *c, const char *url, struct curl_slist *headers, const char *form,
                  char *why)
{
    struct image_registry *r = c->r;
    const char *schemes = r->insecure ? "http,https" : "https";
    const char *ca = getenv("SSL_CERT_FILE"); /* as other programs, dockerd among them, take it */
    curl_easy_reset(r->curl);
    curl_easy_setopt(r->curl, CURLOPT_URL, url);
    curl_easy_setopt(r->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(r->curl, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(r->curl, CURLOPT_PROTOCOLS_STR, schemes);
    curl_easy_setopt(r->curl, CURLOPT_REDIR_PROTOCOLS_STR, schemes);
    curl_easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT_MS, r->quick ? (long)QUICK_MS : (long)CONNECT_MS);
    curl_easy_setopt(r->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(r->curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(r->curl, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(r->curl, CURLOPT_USERAGENT, "shoal");
    curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(r->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(r->curl, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(r->curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(r->curl, CURLOPT_XFERINFODATA, r);
    curl_easy_setopt(r->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(r->curl, CURLOPT_ERRORBUFFER, why);
    if (ca && *ca)
        curl_easy_setopt(r->curl, CURLOPT_CAINFO, ca);
    if (form)
        curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, form);
}

/* What to do about it, where that can be said. */
static const char *cure(CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; add its certificate to this machine's store (or name the file by SSL_CERT_FILE)";
    case CURLE_SSL_CONNECT_ERROR:
        return "; if it speaks plain HTTP, start the daemon with --insecure-registry and its name";
    default:
        return "";
    }
}

/* 0: a reply of whatever status. *ret_again: the network failed, another try may help. */
static int perform(struct call *c, const char *url, const char *authorization, const char *accept,
                   const char *form, bool *ret_again, struct err *e)
{
    char why[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    AUTO_FREE char *line = authorization ? xasprintf("Authorization: %s", authorization) : NULL;
    *ret_again = false;
    sb_reset(&c->text);
    free(TAKE(c->challenge));
    free(TAKE(c->content_type));
    c->status = 0;
    c->sink.code = 0;
    if (c->blob && image_blob_restart(c->blob, e) < 0)
        return -E_IO;
    if (line)
        headers = curl_slist_append(headers, line);
    if (accept)
        headers = curl_slist_append(headers, accept);
    setup(c, url, headers, form, why);
    CURLcode code = curl_easy_perform(c->r->curl);
    curl_easy_getinfo(c->r->curl, CURLINFO_RESPONSE_CODE, &c->status);
    curl_easy_setopt(c->r->curl, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    if (line)
        crypto_wipe(line, strlen(line));
    if (code == CURLE_OK)
        return 0;
    if (c->sink.code) {
        if (e)
            *e = c->sink;
        return -c->sink.code;
    }
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return err_set(e, E_CLOSED, "cancelled");
    *ret_again = code != CURLE_PEER_FAILED_VERIFICATION && code != CURLE_UNSUPPORTED_PROTOCOL &&
                 code != CURLE_TOO_MANY_REDIRECTS && code != CURLE_URL_MALFORMAT;
    return err_set(e, code == CURLE_OPERATION_TIMEDOUT ? E_TIMEOUT : E_UNAVAILABLE,
                   "registry %s: %.250s%s", c->r->host, why[0] ? why : curl_easy_strerror(code), cure(code));
}

/* ---- tokens ---- */

static void add_param(struct image_registry *r, struct sb *b, const char *name, const char *value,
                      char sep)
{
    char *coded = value ? curl_easy_escape(r->curl, value, 0) : NULL;
    if (coded)
        sb_printf(b, "%c%s=%s", sep, name, coded);
    curl_free(coded);
}

static int take_token(struct image_registry *r, struct call *c, struct err *e)
{
    struct val_doc *d = NULL;
    if (c->status < 200 || c->status > 299)
        return err_set(e, c->status == 401 || c->status == 403 ? E_DENIED : E_UNAVAILABLE,
                       "the token service of %s answered with status %ld; log in again?", r->host,
                       c->status);
    if (json_parse(&d, c->text.s, c->text.len, "token", NULL) < 0)
        return err_set(e, E_CORRUPT, "the token service of %s did not answer with JSON", r->host);
    const char *token = val_get_str(val_root(d), "token");
    token = token && token[0] ? token : val_get_str(val_root(d), "access_token");
    bool ok = image_token_ok(token);
    if (ok)
        set_authorization(r, xasprintf("Bearer %s", token));
    val_doc_free(d);
    crypto_wipe(c->text.s, c->text.len);
    return ok ? 0 : err_set(e, E_CORRUPT, "the token service of %s gave no usable token", r->host);
}

/* Asks the realm: GET with basic credentials or none, or POST with an identity (refresh) token. */
static int fetch_token(struct image_registry *r, const struct image_challenge *ch, bool *again,
                       struct err *e)
{
    struct call c = { .r = r, .text_max = TOKEN_MAX };
    AUTO_FREE char *basic = r->cred.user ? image_basic(&r->cred) : NULL;
    AUTO_FREE char *scope =
        ch->scope ? xstrdup(ch->scope) : xasprintf("repository:%s:pull", r->path);
    AUTO_SB struct sb url, form;
    sb_init(&c.text, TOKEN_MAX + 1);
    sb_init(&url, 16 << 10);
    sb_init(&form, 128 << 10);
    sb_str(&url, ch->realm);
    if (r->cred.identity_token) {
        sb_str(&form, "grant_type=refresh_token&client_id=shoal");
        add_param(r, &form, "service", ch->service, '&');
        add_param(r, &form, "scope", scope, '&');
        add_param(r, &form, "refresh_token", r->cred.identity_token, '&');
    } else {
        add_param(r, &url, "service", ch->service, strchr(ch->realm, '?') ? '&' : '?');
        add_param(r, &url, "scope", scope, strchr(url.s, '?') ? '&' : '?');
    }
    int code =
        url.overflow || form.overflow
            ? err_set(e, E_TOO_BIG, "the token challenge of %s is too long", r->host)
            : perform(&c, url.s, form.len ? NULL : basic, NULL, form.len ? form.s : NULL, again, e);
    if (code == 0)
        code = take_token(r, &c, e);
    if (basic)
        crypto_wipe(basic, strlen(basic));
    crypto_wipe(form.s, form.len);
    sb_done(&c.text);
    free(c.challenge);
    free(c.content_type);
    return code;
}

static int answer_challenge(struct image_registry *r, const struct call *c, bool *again,
                            struct err *e)
{
    struct image_challenge ch;
    *again = false;
    if (!c->challenge || !image_challenge_parse(&ch, c->challenge))
        return err_set(e, E_DENIED, "registry %s wants a login of a kind unknown here", r->host);
    int code = 0;
    if (ch.bearer)
        code = fetch_token(r, &ch, again, e);
    else if (r->cred.user)
        set_authorization(r, image_basic(&r->cred));
    else
        code = err_set(e, E_DENIED,
                       "pull access denied for %s: no basic auth credentials; log in to %s first",
                       r->familiar, r->host);
    image_challenge_clear(&ch);
    return code;
}

/* ---- requests ---- */

static int status_err(const struct image_registry *r, const struct call *c, const char *what,
                      struct err *e)
{
    AUTO_FREE char *reason = image_registry_reason(c->text.s, c->text.len);
    const char *colon = reason[0] ? ": " : "";
    if (c->status == 404)
        return err_set(e, E_NOT_FOUND, "%s not found%s%s", what, colon, reason);
    if (c->status == 401 || c->status == 403)
        return err_set(
            e, E_DENIED,
            "pull access denied for %s, repository does not exist or may require a login%s%s",
            r->familiar, colon, reason);
    return err_set(e, E_UNAVAILABLE, "%s: registry %s answered with status %ld%s%s", what, r->host,
                   c->status, colon, reason);
}

/* Up to ATTEMPTS tries, one login in between; 0: a body of status 2xx is in the call's sink. */
static int request(struct call *c, const char *url, const char *accept, const char *what,
                   struct err *e)
{
    struct image_registry *r = c->r;
    bool again = false;
    int code;
    r->authorized = false;
    for (unsigned attempt = 1;; attempt++) {
        code = perform(c, url, r->authorization, accept, NULL, &again, e);
        if (code == 0 && c->status == 401 && !r->authorized) {
            code = answer_challenge(r, c, &again, e);
            r->authorized = code == 0;
            if (code == 0) {
                attempt--; /* a login is no failure; it happens once */
                continue;
            }
        } else if (code == 0) {
            if (c->status >= 200 && c->status <= 299)
                return 0;
            again = c->status == 429 || c->status >= 500;
            code = status_err(r, c, what, e);
        }
        if (!again || attempt == ATTEMPTS || r->quick)
            return code;
        if (r->wait && r->wait(r->arg, BACKOFF_MS << (2 * (attempt - 1))))
            return err_set(e, E_CLOSED, "cancelled");
    }
}

static void call_done(struct call *c)
{
    sb_done(&c->text);
    free(c->challenge);
    free(c->content_type);
}

int image_registry_manifest(struct image_registry *r, const char *reference,
                            struct image_manifest *ret, struct image_desc *ret_desc, struct err *e)
{
    static const char accept[] = "Accept: application/vnd.oci.image.index.v1+json, "
                                 "application/vnd.oci.image.manifest.v1+json, "
                                 "application/vnd.docker.distribution.manifest.list.v2+json, "
                                 "application/vnd.docker.distribution.manifest.v2+json";
    AUTO_FREE char *url = xasprintf("%s/v2/%s/manifests/%s", r->base, r->path, reference);
    AUTO_FREE char *what = xasprintf("manifest for %s", r->familiar);
    struct call c = { .r = r, .text_max = IMAGE_MANIFEST_MAX };
    uint8_t sum[CRYPTO_SHA256_SIZE];
    sb_init(&c.text, IMAGE_MANIFEST_MAX + 1);
    int code = request(&c, url, accept, what, e);
    AUTO_FREE char *digest = NULL;
    if (code == 0) {
        crypto_sha256(sum, c.text.s, c.text.len);
        digest = image_digest_of(sum);
        if (image_digest_ok(reference) && !str_equal(reference, digest))
            code = err_set(e, E_CORRUPT, "%s: digest mismatch: want %s, the registry sent %s", what,
                           reference, digest);
    }
    if (code == 0)
        code = image_manifest_parse(ret, c.text.s, c.text.len, c.content_type, e);
    if (code == 0)
        *ret_desc = (struct image_desc){ .digest = TAKE(digest),
                                         .media_type = xstrdup(ret->media_type),
                                         .size = (int64_t)c.text.len };
    call_done(&c);
    return code;
}

int image_registry_blob(struct image_registry *r, const struct image_desc *desc,
                        struct image_blob_writer *w, void (*progress)(void *arg, int64_t current),
                        void *arg, struct err *e)
{
    AUTO_FREE char *url = xasprintf("%s/v2/%s/blobs/%s", r->base, r->path, desc->digest);
    AUTO_FREE char *what = xasprintf("blob %s of %s", desc->digest, r->familiar);
    struct call c = { .r = r, .blob = w, .progress = progress, .arg = arg };
    sb_init(&c.text, REASON_BODY + 1);
    int code = request(&c, url, NULL, what, e);
    if (code == 0 && image_blob_size(w) != desc->size)
        code = err_set(e, E_CORRUPT, "%s: %lld bytes came, the manifest says %lld", what,
                       (long long)image_blob_size(w), (long long)desc->size);
    call_done(&c);
    return code;
}
