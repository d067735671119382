/* /images: save, push; /auth. */
#include "api_internal.h"
#include <shoal/base/crypto.h>

LOG_MODULE("api");

enum { PIECE = 512 << 10 };

/* ---- save: read on the bulk lane, piece by piece, as fast as the client takes it ---- */
struct saver {
    struct call *c;
    struct image_save *save;
    char *buf;
    long n;
    bool reading;
    struct err e;
};

static void saver_free(struct saver *u)
{
    image_save_free(u->save);
    free(u->buf);
    free(u);
}

static void save_work(void *arg)
{
    struct saver *u = arg;
    u->n = image_save_read(u->save, u->buf, PIECE, &u->e);
}

static void save_next(struct saver *u);

static void save_done(void *arg)
{
    struct saver *u = arg;
    struct call *c = u->c;
    if (!c->r) {
        call_free(c);
        saver_free(u);
    } else if (u->n > 0) {
        stream_put(c, u->buf, (size_t)u->n); /* may drain at once: buf must not be read into meanwhile */
        u->reading = false;
        save_next(u);
    } else {
        if (u->n < 0)
            log_warn("image save: %s", u->e.text);
        if (u->n < 0)
            http_stream_cut(TAKE(c->r));
        stream_done(c);
        saver_free(u);
    }
}

static void save_next(struct saver *u)
{
    if (u->reading || http_stream_is_full(u->c->r))
        return; /* save_drain goes on */
    u->reading = true;
    if (loop_work(u->c->api->b.loop, LANE_BULK, save_work, save_done, u) == 0)
        return;
    u->n = err_set(&u->e, E_BUSY, "too many jobs are waiting");
    loop_defer(u->c->api->b.loop, save_done, u);
}

static void save_drain(struct call *c)
{
    if (!((struct saver *)c->state)->reading)
        save_next(c->state);
}

static void save_gone(struct call *c)
{
    struct saver *u = c->state;
    if (u->reading)
        return; /* save_done finds the client gone */
    call_free(c);
    saver_free(u);
}

void image_save(struct call *c)
{
    struct strs names = { 0 };
    struct saver *u = xnew(struct saver);
    struct err e;
    const char *name;
    if (c->param[0])
        strs_add(&names, c->param[0]);
    for (unsigned k = 0; !c->param[0] && (name = http_query_nth(c->r, "names", k)); k++)
        strs_add(&names, name);
    int r = image_save_new(&u->save, c->api->b.images, &names, &e);
    if (r < 0) {
        free(u);
        reply_err(c, &e);
    } else {
        for (uint32_t i = 0; i < names.n; i++)
            image_event(c->api, "save", names.v[i], names.v[i]);
        u->c = c;
        u->buf = xcalloc(1, PIECE);
        c->state = u;
        c->gone = save_gone;
        c->drain = save_drain;
        stream_begin(c, "application/x-tar");
        save_next(u);
    }
    strs_clear(&names);
}

/* ---- push: one tag after the other ---- */
struct pusher { struct call *c; char *repo, *auth; struct strs tags; uint32_t at; };

static void pusher_free(struct pusher *u)
{
    free(u->repo);
    if (u->auth)
        crypto_wipe(u->auth, strlen(u->auth));
    free(u->auth);
    strs_clear(&u->tags);
    free(u);
}

static void push_progress(void *arg, const struct image_progress *p)
{
    transfer_line(((struct pusher *)arg)->c, p);
}

static void push_next(struct pusher *u);

static void push_done(void *arg, const struct image_pushed *p, const struct err *e)
{
    struct pusher *u = arg;
    AUTO_FREE char *ref = xasprintf("%s:%s", u->repo, u->tags.v[u->at]);
    if (e) {
        error_line(u->c, e);
    } else {
        struct val_doc *d = val_doc_new();
        struct val *v = val_map(d), *aux = val_map(d);
        val_set(d, aux, "Tag", val_str(d, u->tags.v[u->at]));
        val_set(d, aux, "Digest", val_str(d, p->digest));
        val_set(d, aux, "Size", val_int(d, p->size));
        val_set(d, v, "progressDetail", val_map(d));
        val_set(d, v, "aux", aux);
        progress_line(u->c, d, v);
        image_event(u->c->api, "push", ref, u->repo);
        if (++u->at < u->tags.n) {
            push_next(u);
            return;
        }
    }
    stream_done(u->c);
    pusher_free(u);
}

static void push_next(struct pusher *u)
{
    AUTO_FREE char *ref = xasprintf("%s:%s", u->repo, u->tags.v[u->at]);
    image_push(u->c->api->b.images, ref, u->auth, push_progress, push_done, u);
}

static void keep_call(struct call *c)
{
    (void)c; /* what goes on frees it */
}

/* Without a tag all of the repository, as `docker push --all-tags` asks for it. */
static void find_tags(const struct call *c, const char *repo, struct strs *ret)
{
    struct image_ref r;
    if (image_ref_parse(&r, repo, NULL) < 0)
        return;
    free(r.tag);
    r.tag = xstrdup("");
    AUTO_FREE char *prefix = image_ref_familiar(&r);
    image_ref_clear(&r);
    for (const struct image *i = NULL; (i = image_next(c->api->b.images, i));)
        for (uint32_t k = 0; k < i->repo_tags.n; k++)
            if (str_starts(i->repo_tags.v[k], prefix))
                strs_add(ret, i->repo_tags.v[k] + strlen(prefix));
}

void image_push_route(struct call *c)
{
    const char *tag = query(c, "tag"), *repo = c->param[0];
    struct pusher *u = xnew(struct pusher);
    struct image_ref r;
    struct err e;
    int code = image_ref_parse(&r, repo, &e);
    u->c = c;
    u->repo = xstrdup(repo);
    if (code == 0 && (r.digest || strchr(strrchr(repo, '/') ? strrchr(repo, '/') : repo, ':')))
        code = err_set(&e, E_INVALID, "name the repository alone and the tag in the parameter tag (%s)", repo);
    if (code == 0 && !auth_of(c, &u->auth))
        code = err_set(&e, E_INVALID, "X-Registry-Auth is not base64");
    if (code == 0 && tag && *tag)
        strs_add(&u->tags, tag);
    else if (code == 0)
        find_tags(c, repo, &u->tags);
    for (uint32_t i = 0; code == 0 && i < u->tags.n; i++) {
        AUTO_FREE char *ref = xasprintf("%s:%s", repo, u->tags.v[i]);
        if (!image_find(c->api->b.images, ref))
            code = err_set(&e, E_NOT_FOUND, "An image does not exist locally with the tag: %s", ref);
    }
    if (code == 0 && !u->tags.n)
        code = err_set(&e, E_NOT_FOUND, "An image does not exist locally with the tag: %s", repo);
    if (r.path)
        image_ref_clear(&r);
    if (code < 0) {
        pusher_free(u);
        reply_err(c, &e);
        return;
    }
    c->gone = keep_call;
    stream_begin(c, "application/json");
    push_next(u);
}

/* ---- /auth ---- */

static void login_done(void *arg, const struct err *e)
{
    struct call *c = arg;
    if (!e)
        reply_json(c, 200, "{\"IdentityToken\":\"\",\"Status\":\"Login Succeeded\"}\n");
    else if (e->code == E_DENIED && c->r) { /* of the registry, not of this API */
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        sb_str(&b, "{\"message\":");
        sb_json_str(&b, e->text, strlen(e->text));
        sb_str(&b, "}\n");
        reply_json(c, 401, b.s);
    } else
        reply_err(c, e);
}

static void login(struct call *c, const struct val *body, const char *text, size_t size)
{
    AUTO_FREE char *auth = xstrndup(text, size);
    if (!body || body->kind != V_MAP) {
        reply_error(c, E_INVALID, "want {\"username\", \"password\", \"serveraddress\"}");
        return;
    }
    c->gone = keep_call;
    image_login(c->api->b.images, auth, login_done, c);
    crypto_wipe(auth, size);
}

void registry_auth(struct call *c)
{
    with_body(c, login);
}
