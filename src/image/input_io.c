/* Streamed input: `docker load` and `docker import`. The bytes are spooled to ROOT/tmp on the
 * loop's thread (plain writes into the page cache), then one job on the bulk lane spreads,
 * verifies and unpacks them; the store learns of the result on the loop again. Nothing is
 * visible before that and nothing stays on error. */
#include "image_internal.h"

#include <shoal/base/file.h>
#include <unistd.h>

#define SPOOL_MAX (INT64_C(1) << 40)

struct image_input {
    struct image_store *store;
    struct image_blob_writer *spool;
    struct err broken; /* why the spool could not be made or written; told at the end */
    bool import;
    char *ref, *message;
    struct strs changes;
    /* the job */
    char *root, *path, *digest; /* digest: of the file at path */
    struct image_loaded_list loaded;
    struct err e;
    int code;
    image_input_done_fn *done;
    void *arg;
};

struct image_input *image_input_new(struct image_store *s, const struct image_import *import)
{
    struct image_input *in = xnew(struct image_input);
    in->store = s;
    in->root = xstrdup(s->root);
    image_store_hold(s);
    if (image_blob_begin(&in->spool, s->root, NULL, SPOOL_MAX, &in->broken) < 0)
        in->spool = NULL;
    if (import) {
        in->import = true;
        str_set(&in->ref, import->ref);
        str_set(&in->message, import->message);
        for (uint32_t i = 0; import->changes && import->changes[i]; i++)
            strs_add(&in->changes, import->changes[i]);
    }
    return in;
}

static void input_free(struct image_input *in)
{
    struct image_store *s = in->store;
    image_blob_abort(in->spool);
    if (in->path)
        unlink(in->path);
    image_loaded_clear(&in->loaded);
    strs_clear(&in->changes);
    free(in->ref);
    free(in->message);
    free(in->root);
    free(in->path);
    free(in->digest);
    free(in);
    image_store_unhold(s);
}

int image_input_feed(struct image_input *in, const void *p, size_t size, struct err *e)
{
    if (!in->broken.code)
        (void)(image_blob_add(in->spool, p, size, &in->broken) < 0);
    if (!in->broken.code)
        return 0;
    if (e)
        *e = in->broken;
    return -in->broken.code;
}

/* ---- worker thread ---- */

static int import_rootfs(struct image_input *in, struct err *e)
{
    struct image_config c = { 0 };
    const char **changes = xcalloc(in->changes.n + 1, sizeof *changes);
    AUTO_FREE char *diff_id = NULL;
    AUTO_FREE char *json = NULL;
    AUTO_FREE char *id = NULL;
    struct image_config check;
    char created[40];
    for (uint32_t i = 0; i < in->changes.n; i++)
        changes[i] = in->changes.v[i];
    int r = image_changes_apply(&c, changes, e); /* before the long work */
    struct image_layer_job job = { .root = in->root, .archive = in->path };
    if (r == 0)
        r = image_layer_unpack(&job, &diff_id, e);
    if (r == 0)
        r = image_kept_put(in->root, diff_id, in->path, in->digest, e);
    if (r == 0) {
        strs_add(&c.diff_ids, diff_id);
        time_format(created, clock_real_ns());
        json = image_config_write(&c, created, in->message && *in->message ? in->message : "Imported from -");
        r = image_config_parse(&check, json, strlen(json),
                               e); /* what was changed must be readable again */
    }
    if (r == 0) {
        image_config_clear(&check);
        r = image_blob_put(in->root, json, strlen(json), &id, e);
    }
    if (r == 0) {
        struct image_loaded *l = image_loaded_add(&in->loaded, id);
        if (in->ref)
            strs_add(&l->tags, in->ref);
    }
    free(changes);
    image_config_clear(&c);
    return r;
}

static void input_work(void *arg)
{
    struct image_input *in = arg;
    if (in->import)
        in->code = import_rootfs(in, &in->e);
    else
        in->code = image_load_archive(in->root, in->path, &in->loaded, &in->e);
}

/* ---- loop thread ---- */

static void input_done(void *arg)
{
    struct image_input *in = arg;
    struct image_store *s = in->store;
    struct strs names = { 0 };
    if (s->closed) { /* who asked is gone too */
        input_free(in);
        return;
    }
    s->sweep_wanted = true;
    if (in->code == 0)
        in->code = image_store_commit(s, &in->loaded, &names, &in->e);
    image_input_done_fn *done = in->done;
    void *done_arg = in->arg;
    struct err e = in->e;
    int code = in->code;
    input_free(in);
    done(done_arg, code < 0 ? NULL : &names, code < 0 ? &e : NULL);
    strs_clear(&names);
}

static int check_ref(const struct image_input *in, struct err *e)
{
    struct image_ref r;
    if (!in->ref)
        return 0;
    int code = image_ref_parse(&r, in->ref, e);
    if (code == 0 && r.digest)
        code = err_set(e, E_INVALID, "cannot import under a digest reference (%.300s)", in->ref);
    image_ref_clear(&r);
    return code;
}

void image_input_finish(struct image_input *in, image_input_done_fn *done, void *arg)
{
    struct image_store *s = in->store;
    in->done = done;
    in->arg = arg;
    if (in->broken.code) {
        in->e = in->broken;
        in->code = -in->broken.code;
    } else {
        in->code = check_ref(in, &in->e);
    }
    if (in->code == 0)
        in->code = image_blob_spool(TAKE(in->spool), &in->path, &in->digest, &in->e);
    if (in->code == 0) {
        if (loop_work(s->loop, LANE_BULK, input_work, input_done, in) == 0)
            return; /* in is the worker's now */
        in->code = err_set(&in->e, E_BUSY, "too many jobs are waiting; try again later");
    }
    loop_defer(s->loop, input_done, in);
}

void image_input_abort(struct image_input *in)
{
    input_free(in);
}
