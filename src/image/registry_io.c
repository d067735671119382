/* The registry API, version 2, as a client (OCI distribution-spec "Pull" and "Push"), over libcurl,
 * blocking: pulls and pushes have threads of their own. Plain HTTP only where the operator named the host
 * insecure. Credentials go to the registry or its token realm and nowhere else: libcurl drops
 * the header when a redirect leaves the host. What comes is bounded by what was announced, and
 * by a fixed size before anything was. */
#include "image_internal.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <shoal/base/crypto.h>
#include <shoal/base/library.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

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
    bool insecure, quick, push, authorized; /* authorized: the challenge was answered once */
    bool answered;             /* with any status at all */
    long connect_ms;
    struct image_certs certs;
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
    const char *method;             /* NULL: GET, or POST of the form */
    const char *type;               /* Content-Type of what is sent */
    const void *body;               /* small, sent */
    size_t body_size;
    int file;                       /* with file_size: a large one; from its start at each attempt */
    int64_t file_size, sent;
    bool once;                      /* no second attempt by itself: the caller starts anew */
    bool no_login;                  /* another host than the registry: it gets no credentials */
    struct image_blob_writer *blob; /* where a good body goes, or: */
    struct sb text;                 /* a small one; and the body of an error */
    size_t text_max;
    void (*progress)(void *arg, int64_t current);
    void *arg;
    int64_t resumed, part;          /* bytes of the blob from before; where the reply says it begins */
    bool placed;                    /* the reply was found to go on there */
    long status;
    char *challenge, *content_type, *location;
    struct err sink;                /* why the body was not taken */
};

#define CURL_CALLS(F)                                                                                          \
    F(easy_cleanup) F(easy_escape) F(easy_getinfo) F(easy_init) F(easy_perform) F(easy_reset)                  \
    F(easy_setopt) F(easy_strerror) F(free) F(global_init) F(slist_append) F(slist_free_all)
static struct {
#define F(name) __typeof__(curl_##name) *name;
    CURL_CALLS(F)
#undef F
} libcurl;
static struct library curl_library = LIBRARY(LIBCURL_FILE, "libcurl4", "curl_", CURL_CALLS, libcurl);

static void init_once(void)
{
    ASSERT(libcurl.global_init(CURL_GLOBAL_DEFAULT) == 0);
}

int image_registry_open(struct image_registry **ret, const struct image_registry_config *cfg,
                        struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct image_credentials cred;
    int code = library_load(&curl_library, e);
    if (code == 0)
        code = image_credentials_parse(&cred, cfg->auth, e);
    if (code < 0)
        return code;
    pthread_once(&once, init_once);
    bool dock = str_equal(cfg->host, "docker.io"); /* its API answers under another name */
    struct image_registry *r = xnew(struct image_registry);
    *r = (struct image_registry){
        .base = cfg->base ? xstrdup(cfg->base)
                          : xasprintf("%s://%s%s", cfg->insecure ? "http" : "https", dock ? "registry-1." : "", cfg->host),
        .path = xstrdup(cfg->path),
        .familiar = xstrdup(cfg->familiar),
        .host = xstrdup(cfg->base ? strstr(cfg->base, "://") + 3 : cfg->host),
        .insecure = cfg->base ? str_starts(cfg->base, "http:") : cfg->insecure,
        .quick = cfg->quick,
        .connect_ms = cfg->connect_ms ? (long)cfg->connect_ms : cfg->quick ? (long)QUICK_MS : (long)CONNECT_MS,
        .push = cfg->push,
        .cred = cred,
        .wait = cfg->wait,
        .cancelled = cfg->cancelled,
        .arg = cfg->arg,
        .authorization = xstrdup(cfg->authorization),
        .curl = libcurl.easy_init(),
    };
    if (!r->authorization && cred.registry_token)
        r->authorization = xasprintf("Bearer %s", cred.registry_token);
    code = r->curl ? image_certs_read(&r->certs, cfg->certs_dir, r->host, e)
                   : err_set(e, E_NO_MEMORY, "libcurl did not start");
    if (code == 0)
        *ret = r;
    else
        image_registry_close(r);
    return code;
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

bool image_registry_answered(const struct image_registry *r)
{
    return r->answered;
}

void image_registry_close(struct image_registry *r)
{
    if (!r)
        return;
    if (r->curl)
        libcurl.easy_cleanup(r->curl);
    set_authorization(r, NULL);
    image_credentials_clear(&r->cred);
    image_certs_clear(&r->certs);
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
    } else if (n > 20 && n < CHALLENGE_MAX && strncasecmp(p, "content-range:", 14) == 0) {
        AUTO_FREE char *value = xstrndup(p + 14, n - 14);
        long long from;
        c->part = sscanf(value, " bytes %lld-", &from) == 1 ? from : -1;
    } else if (n > 9 && n < CHALLENGE_MAX && strncasecmp(p, "location:", 9) == 0) {
        size_t skip = 9;
        while (skip < n && p[skip] == ' ')
            skip++;
        free(c->location);
        c->location = xstrndup(p + skip, n - skip);
    }
    return whole;
}

/* The first bytes of a reply to a request for the rest: are they the rest, or all of it? */
static bool place_part(struct call *c, long status)
{
    if (c->placed)
        return true;
    c->placed = true;
    if (status == 206 && c->part == c->resumed)
        return true;
    if (image_blob_restart(c->blob, &c->sink) < 0)
        return false;
    if (status != 206)
        return true;
    (void)err_set(&c->sink, E_CORRUPT, "registry %s answered with another part of a blob than asked for; try again",
                  c->r->host);
    return false;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    long status = 0;
    n *= size;
    libcurl.easy_getinfo(c->r->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299) {
        sb_add(&c->text, p, MIN(n, REASON_BODY - MIN(c->text.len, (size_t)REASON_BODY)));
        return n;
    }
    if (c->blob) {
        if ((c->resumed && !place_part(c, status)) || image_blob_add(c->blob, p, n, &c->sink) < 0)
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

static size_t on_send(char *p, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    ssize_t got = pread(c->file, p, size * n, c->sent);
    if (got < 0) {
        (void)err_errno(&c->sink, errno, "read a blob to push");
        return CURL_READFUNC_ABORT;
    }
    c->sent += got;
    if (c->progress)
        c->progress(c->arg, c->sent);
    return (size_t)got;
}

static int on_rewind(void *arg, curl_off_t offset, int origin)
{
    struct call *c = arg;
    if (origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    c->sent = offset;
    return CURL_SEEKFUNC_OK;
}

static void setup_upload(const struct call *c, CURL *curl)
{
    if (c->method)
        libcurl.easy_setopt(curl, CURLOPT_CUSTOMREQUEST, c->method);
    if (str_equal(c->method, "HEAD"))
        libcurl.easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (c->file_size) {
        libcurl.easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        libcurl.easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)c->file_size);
        libcurl.easy_setopt(curl, CURLOPT_READFUNCTION, on_send);
        libcurl.easy_setopt(curl, CURLOPT_READDATA, c);
        libcurl.easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_rewind);
        libcurl.easy_setopt(curl, CURLOPT_SEEKDATA, c);
        libcurl.easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    } else if (c->body) {
        libcurl.easy_setopt(curl, CURLOPT_POSTFIELDS, c->body);
        libcurl.easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)c->body_size);
    }
}

static int on_tick(void *arg, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t f)
{
    const struct image_registry *r = arg;
    return r->cancelled && r->cancelled(r->arg);
}

/* A certificate authority of the registry's own counts beside the machine's (libcurl's folder of those stays). The
 * client's certificate is for the registry alone, not for where it sends us. */
static void setup_certs(struct image_registry *r, const char *url)
{
    size_t n = strlen(r->base);
    if (r->certs.ca) {
        struct curl_blob blob = { .data = r->certs.ca, .len = strlen(r->certs.ca), .flags = CURL_BLOB_COPY };
        libcurl.easy_setopt(r->curl, CURLOPT_CAINFO_BLOB, &blob);
    }
    if (r->certs.cert && strncmp(url, r->base, n) == 0 && url[n] == '/') {
        libcurl.easy_setopt(r->curl, CURLOPT_SSLCERT, r->certs.cert);
        libcurl.easy_setopt(r->curl, CURLOPT_SSLKEY, r->certs.key);
    }
}

static void setup(struct call *c, const char *url, struct curl_slist *headers, const char *form,
                  char *why)
{
    struct image_registry *r = c->r;
    const char *schemes = r->insecure ? "http,https" : "https";
    const char *ca = getenv("SSL_CERT_FILE"); /* as other programs, dockerd among them, take it */
    libcurl.easy_reset(r->curl);
    libcurl.easy_setopt(r->curl, CURLOPT_URL, url);
    libcurl.easy_setopt(r->curl, CURLOPT_NOSIGNAL, 1L);
    libcurl.easy_setopt(r->curl, CURLOPT_FOLLOWLOCATION, 1L);
    libcurl.easy_setopt(r->curl, CURLOPT_MAXREDIRS, 5L);
    libcurl.easy_setopt(r->curl, CURLOPT_PROTOCOLS_STR, schemes);
    libcurl.easy_setopt(r->curl, CURLOPT_REDIR_PROTOCOLS_STR, schemes);
    libcurl.easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT_MS, r->connect_ms);
    libcurl.easy_setopt(r->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    libcurl.easy_setopt(r->curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    libcurl.easy_setopt(r->curl, CURLOPT_BUFFERSIZE, 256L << 10);
    libcurl.easy_setopt(r->curl, CURLOPT_USERAGENT, "shoal");
    libcurl.easy_setopt(r->curl, CURLOPT_HTTPHEADER, headers);
    libcurl.easy_setopt(r->curl, CURLOPT_HEADERFUNCTION, on_header);
    libcurl.easy_setopt(r->curl, CURLOPT_HEADERDATA, c);
    libcurl.easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, on_body);
    libcurl.easy_setopt(r->curl, CURLOPT_WRITEDATA, c);
    libcurl.easy_setopt(r->curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    libcurl.easy_setopt(r->curl, CURLOPT_XFERINFODATA, r);
    libcurl.easy_setopt(r->curl, CURLOPT_NOPROGRESS, 0L);
    libcurl.easy_setopt(r->curl, CURLOPT_ERRORBUFFER, why);
    if (ca && *ca)
        libcurl.easy_setopt(r->curl, CURLOPT_CAINFO, ca);
    setup_certs(r, url);
    char range[32];
    snprintf(range, sizeof range, "%lld-", (long long)c->resumed);
    if (c->resumed)
        libcurl.easy_setopt(r->curl, CURLOPT_RANGE, range); /* copied by libcurl */
    if (form)
        libcurl.easy_setopt(r->curl, CURLOPT_POSTFIELDS, form);
    setup_upload(c, r->curl);
}

/* What to do about it, where that can be said. */
static const char *cure(CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; put its certificate into certs.d/HOST:PORT/ca.crt of the daemon's --certs-dir, or into this machine's store "
               "(or name the file by SSL_CERT_FILE)";
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
    free(TAKE(c->location));
    c->status = 0;
    c->sent = 0;
    c->sink.code = 0;
    c->resumed = c->blob ? image_blob_size(c->blob) : 0;
    c->placed = false;
    c->part = -1;
    if (line)
        headers = libcurl.slist_append(headers, line);
    if (accept)
        headers = libcurl.slist_append(headers, accept);
    AUTO_FREE char *type = c->type ? xasprintf("Content-Type: %s", c->type) : NULL;
    if (type)
        headers = libcurl.slist_append(headers, type);
    if (c->method)
        headers = libcurl.slist_append(headers, "Expect:"); /* a login comes before, so a body is not sent in vain */
    setup(c, url, headers, form, why);
    CURLcode code = libcurl.easy_perform(c->r->curl);
    libcurl.easy_getinfo(c->r->curl, CURLINFO_RESPONSE_CODE, &c->status);
    c->r->answered |= c->status != 0;
    libcurl.easy_setopt(c->r->curl, CURLOPT_ERRORBUFFER, NULL);
    libcurl.slist_free_all(headers);
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
                   "registry %s: %.250s%s", c->r->host, why[0] ? why : libcurl.easy_strerror(code), cure(code));
}

static void call_done(struct call *c)
{
    sb_done(&c->text);
    free(c->challenge);
    free(c->content_type);
    free(c->location);
}

/* ---- tokens ---- */

static void add_param(struct image_registry *r, struct sb *b, const char *name, const char *value,
                      char sep)
{
    char *coded = value ? libcurl.easy_escape(r->curl, value, 0) : NULL;
    if (coded)
        sb_printf(b, "%c%s=%s", sep, name, coded);
    libcurl.free(coded);
}

/* One parameter for each, as the token specification has it. */
static void add_scopes(struct image_registry *r, struct sb *url, char *scope)
{
    char *rest = NULL;
    for (char *one = strtok_r(scope, " ", &rest); one; one = strtok_r(NULL, " ", &rest))
        add_param(r, url, "scope", one, strchr(url->s, '?') ? '&' : '?');
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
    AUTO_FREE char *scope = ch->scope ? xstrdup(ch->scope)
                            : !r->path ? xstrdup("") /* a login */
                                       : xasprintf("repository:%s:pull%s", r->path, r->push ? ",push" : "");
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
        add_scopes(r, &url, scope);
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
    call_done(&c);
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
                       "%s access denied for %s: no basic auth credentials; log in to %s first",
                       r->push ? "push" : "pull", r->familiar, r->host);
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
            "%s access denied for %s, repository does not exist or may require a login%s%s",
            r->push ? "push" : "pull", r->familiar, colon, reason);
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
    int64_t had = c->blob ? image_blob_size(c->blob) : 0;
    r->authorized = false;
    for (unsigned attempt = 1;; attempt++) {
        code = perform(c, url, r->authorization, accept, NULL, &again, e);
        if (code == 0 && c->status == 401 && !r->authorized && !c->no_login) {
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
            if (c->status == 416 && c->resumed) /* nothing there to go on with: from the start */
                again = image_blob_restart(c->blob, NULL) == 0;
        }
        bool on = c->blob && image_blob_size(c->blob) > had;
        if (on) { /* that is no failed attempt */
            had = image_blob_size(c->blob);
            attempt = 1;
        }
        if (!again || attempt == ATTEMPTS || (r->quick && !on) || c->once)
            return code;
        if (r->wait && r->wait(r->arg, BACKOFF_MS << (2 * (attempt - 1))))
            return err_set(e, E_CLOSED, "cancelled");
    }
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
    bool whole = desc->size && image_blob_size(w) == desc->size; /* from before */
    int code = whole ? 0 : request(&c, url, NULL, what, e);
    if (code == 0 && image_blob_size(w) != desc->size)
        code = err_set(e, E_CORRUPT, "%s: %lld bytes came, the manifest says %lld", what,
                       (long long)image_blob_size(w), (long long)desc->size);
    call_done(&c);
    return code;
}

/* ---- push ---- */

int image_registry_has(struct image_registry *r, const struct image_desc *desc, bool *ret, struct err *e)
{
    AUTO_FREE char *url = xasprintf("%s/v2/%s/blobs/%s", r->base, r->path, desc->digest);
    AUTO_FREE char *what = xasprintf("blob %s of %s", desc->digest, r->familiar);
    struct call c = { .r = r, .method = "HEAD" };
    sb_init(&c.text, REASON_BODY + 1);
    int code = request(&c, url, NULL, what, e);
    *ret = code == 0;
    call_done(&c);
    return code == -E_NOT_FOUND ? 0 : code;
}

/* Where the bytes of an upload go: Location, against the registry's address, with the digest. A registry may lead to
 * another host; it then signs the address itself and must not see the login. */
static char *upload_url(struct image_registry *r, const char *location, const char *digest, bool *ret_foreign)
{
    AUTO_FREE char *whole = location[0] == '/' ? xasprintf("%s%s", r->base, location) : xstrdup(location);
    size_t n = strlen(r->base);
    char *coded = libcurl.easy_escape(r->curl, digest, 0);
    char *url = xasprintf("%s%cdigest=%s", whole, strchr(whole, '?') ? '&' : '?', coded ? coded : "");
    libcurl.free(coded);
    *ret_foreign = strncmp(whole, r->base, n) != 0 || (whole[n] != '/' && whole[n] != '?');
    return url;
}

static int send_blob(struct image_registry *r, const char *location, const struct image_desc *desc, int file,
                     void (*progress)(void *arg, int64_t current), void *arg, bool *ret_again, struct err *e)
{
    bool foreign;
    AUTO_FREE char *url = upload_url(r, location, desc->digest, &foreign);
    AUTO_FREE char *what = xasprintf("upload of %s to %s", desc->digest, r->familiar);
    AUTO_FREE char *kept = foreign ? TAKE(r->authorization) : NULL;
    struct call c = { .r = r, .method = "PUT", .type = "application/octet-stream", .file = file, .body = "",
                      .file_size = desc->size, .progress = progress, .arg = arg, .once = true, .no_login = foreign };
    sb_init(&c.text, REASON_BODY + 1);
    int code = request(&c, url, NULL, what, e);
    *ret_again = code < 0 && (c.status == 0 || c.status == 404 || c.status == 429 || c.status >= 500) &&
                 code != -E_CLOSED && !c.sink.code;
    if (kept)
        set_authorization(r, TAKE(kept));
    call_done(&c);
    return code;
}

/* Opens an upload; from: a repository of the same registry that has the blob. ret_location NULL: it was mounted. */
static int begin_upload(struct image_registry *r, const struct image_desc *desc, const char *from,
                        char **ret_location, struct err *e)
{
    AUTO_SB struct sb url;
    AUTO_FREE char *what = xasprintf("upload of %s to %s", desc->digest, r->familiar);
    struct call c = { .r = r, .method = "POST", .body = "" };
    sb_init(&url, 16 << 10);
    sb_init(&c.text, REASON_BODY + 1);
    sb_printf(&url, "%s/v2/%s/blobs/uploads/", r->base, r->path);
    if (from) {
        add_param(r, &url, "mount", desc->digest, '?');
        add_param(r, &url, "from", from, '&');
    }
    int code = request(&c, url.s, NULL, what, e);
    *ret_location = NULL;
    if (code == 0 && !(from && c.status == 201)) {
        if (c.location && strlen(c.location) < CHALLENGE_MAX)
            *ret_location = TAKE(c.location);
        else
            code = err_set(e, E_CORRUPT, "%s: registry %s did not say where to", what, r->host);
    }
    call_done(&c);
    return code;
}

int image_registry_push_blob(struct image_registry *r, const struct image_desc *desc, const char *path,
                             const char *from, bool *ret_mounted, void (*progress)(void *arg, int64_t current),
                             void *arg, struct err *e)
{
    struct stat st;
    AUTO_CLOSE int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &st) < 0)
        return err_errno(e, errno, "%s", path);
    if (st.st_size != desc->size)
        return err_set(e, E_CORRUPT, "%s has %lld bytes, its manifest says %lld; pull or load the image again", path,
                       (long long)st.st_size, (long long)desc->size);
    for (unsigned attempt = 1;; attempt++) {
        AUTO_FREE char *location = NULL;
        bool again = false;
        int code = begin_upload(r, desc, from, &location, e);
        *ret_mounted = code == 0 && !location;
        if (code == 0 && location)
            code = send_blob(r, location, desc, file, progress, arg, &again, e);
        if (code == 0 || !again || attempt == ATTEMPTS)
            return code;
        if (r->wait && r->wait(r->arg, BACKOFF_MS << (2 * (attempt - 1))))
            return err_set(e, E_CLOSED, "cancelled");
    }
}

int image_registry_push_manifest(struct image_registry *r, const char *reference, const struct image_manifest *m,
                                 struct err *e)
{
    AUTO_FREE char *url = xasprintf("%s/v2/%s/manifests/%s", r->base, r->path, reference);
    AUTO_FREE char *what = xasprintf("manifest for %s", r->familiar);
    struct call c = { .r = r, .method = "PUT", .type = m->media_type, .body = m->raw, .body_size = m->raw_size };
    sb_init(&c.text, REASON_BODY + 1);
    int code = request(&c, url, NULL, what, e);
    call_done(&c);
    return code;
}

/* ---- login ---- */

int image_registry_login(struct image_registry *r, struct err *e)
{
    AUTO_FREE char *url = xasprintf("%s/v2/", r->base);
    AUTO_FREE char *what = xasprintf("login to %s", r->host);
    struct call c = { .r = r };
    c.text_max = REASON_BODY;
    sb_init(&c.text, REASON_BODY + 1);
    int code = request(&c, url, NULL, what, e);
    if (code == -E_DENIED)
        code = err_set(e, E_DENIED, "registry %s does not take this user name and password", r->host);
    call_done(&c);
    return code;
}
