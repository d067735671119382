/* The image store: references, content-addressed blobs, unpacked layers, loading, importing and pulling.
 * Everything on the loop's thread; hashing and unpacking run on the bulk worker lane. */
#ifndef SHOAL_IMAGE_H
#define SHOAL_IMAGE_H

#include <shoal/base/val.h>
#include <shoal/loop.h>
#include <shoal/model/rec.h>

/* ---- references (pure, ref.c): [HOST[:PORT]/]PATH[:TAG][@sha256:HEX], as Docker reads them ---- */
struct image_ref {
    char *host;   /* "docker.io" when not given */
    char *path;   /* "library/busybox" for docker.io when there is no '/' */
    char *tag;    /* "latest" when neither tag nor digest; NULL with only a digest */
    char *digest; /* "sha256:..." or NULL */
};
int image_ref_parse(struct image_ref *ret, const char *text, struct err *e) must_check;
void image_ref_clear(struct image_ref *r);
char *image_ref_full(const struct image_ref *r);     /* "docker.io/library/busybox:1" (digest left out when a tag is there) */
char *image_ref_familiar(const struct image_ref *r); /* "busybox:1" */

/* ---- image configuration (pure, config.c) ---- */
struct image_config {
    struct strs env, entrypoint, cmd, exposed_ports, volumes, shell;
    struct labels labels;
    char *working_dir, *user, *stop_signal, *architecture, *os, *author, *created;
    struct strs diff_ids;  /* "sha256:..." bottom first */
    struct strs health_test; /* empty: none */
    int64_t health_interval, health_timeout, health_start_period, health_start_interval, health_retries;
    char *raw;             /* the JSON itself */
};
int image_config_parse(struct image_config *ret, const char *json, size_t size, struct err *e) must_check;
void image_config_clear(struct image_config *c);

struct image {
    char *id;               /* "sha256:..." of the configuration */
    struct strs repo_tags;  /* familiar, "busybox:1" */
    struct strs repo_digests;
    struct image_config config;
    struct strs layer_dirs; /* absolute paths of unpacked layers, topmost first (overlayfs lowerdir order) */
    int64_t *layer_sizes;   /* of config.diff_ids, unpacked */
    char *manifest;         /* digest of the manifest it came or went by; NULL: none yet */
    int64_t size_bytes, created_ns;
};

struct image_store;
struct image_store_config {
    const char *root;                    /* blobs/, layers/, images.json, tmp/ */
    const char *const *insecure;         /* HOST[:PORT] spoken to in plain HTTP; NULL-terminated, may be NULL */
    const char *const *mirrors;          /* "[HOST=]http[s]://HOST[:PORT]", asked before HOST (docker.io); likewise */
    const char *certs_dir;               /* HOST[:PORT]/ *.crt, client.cert, client.key; may be NULL or absent */
};
int image_store_open(struct image_store **ret, struct loop *l, const struct image_store_config *cfg,
                     struct err *e) must_check;
void image_store_close(struct image_store *s); /* takes NULL */

/* By id ("sha256:...", hex prefix of >= 4) or reference. Borrowed until the store changes. NULL: absent. */
const struct image *image_find(const struct image_store *s, const char *name);
/* All images: for (const struct image *i = NULL; (i = image_next(s, i));) */
const struct image *image_next(const struct image_store *s, const struct image *after);
int image_tag(struct image_store *s, const char *name, const char *new_ref, struct err *e) must_check;
/* Untags; deletes the image when no tag is left (or by id with force). untagged/deleted get what went. While used says
 * true for its id nothing is deleted: E_CONFLICT, except that force takes the last tag of an image in use away. */
int image_remove(struct image_store *s, const char *name, bool force, bool (*used)(void *arg, const char *id),
                 void *arg, struct strs *untagged, struct strs *deleted, struct err *e) must_check;

/* Bytes on disk of all images: unpacked layers and what is kept of them packed. */
int64_t image_store_usage(const struct image_store *s);

/* Saving: a tar that is both an OCI image layout and an archive of `docker save`, made while it is read. A name without
 * tag means all tags of that repository. No image is swept until the free. Reading is blocking and may be done on any
 * thread, one at a time; 0: the end. */
struct image_save;
int image_save_new(struct image_save **ret, struct image_store *s, const struct strs *names, struct err *e) must_check;
long image_save_read(struct image_save *sv, void *buf, size_t size, struct err *e) must_check;
void image_save_free(struct image_save *sv); /* on the loop; takes NULL */

/* Streamed input: a docker-save or OCI-layout archive (also gzipped), or with import a root filesystem tar.
 * Feed bytes as they come; they are spooled to disk. */
struct image_input;
struct image_import {
    const char *ref, *message;  /* message: comment of the image; NULL or "": where it is from */
    const char *const *changes; /* NULL-terminated "CMD [..]" lines */
};
struct image_input *image_input_new(struct image_store *s, const struct image_import *import /* NULL: load */);
int image_input_feed(struct image_input *in, const void *p, size_t size, struct err *e) must_check; /* E_IO: disk full.. */
/* Ends the input; done gets the loaded references (or ids), or an error; nothing stays behind then. */
typedef void image_input_done_fn(void *arg, const struct strs *loaded, const struct err *e);
void image_input_finish(struct image_input *in /* taken */, image_input_done_fn *done, void *arg);
void image_input_abort(struct image_input *in);

/* Pull. progress (may be NULL) as Docker's client draws it; id: 12 hex digits of a layer or the tag.
 * auth: decoded X-Registry-Auth JSON or NULL. Pulls of one reference at once are one pull. */
struct image_progress { const char *id, *status; int64_t current, total; };
typedef void image_progress_fn(void *arg, const struct image_progress *p);
typedef void image_pull_done_fn(void *arg, const struct image *image, const struct err *e);
void image_pull(struct image_store *s, const char *ref, const char *auth, image_progress_fn *progress,
                image_pull_done_fn *done, void *arg);
/* Push of a tag to the registry in its name; progress as for pull. The image then goes by the manifest pushed. */
struct image_pushed { const char *digest; int64_t size; };
typedef void image_push_done_fn(void *arg, const struct image_pushed *p, const struct err *e);
void image_push(struct image_store *s, const char *ref, const char *auth, image_progress_fn *progress,
                image_push_done_fn *done, void *arg);
/* Does the registry take these credentials (JSON as above, with "serveraddress")? e: why not. */
typedef void image_login_done_fn(void *arg, const struct err *e);
void image_login(struct image_store *s, const char *auth, image_login_done_fn *done, void *arg);
/* Digest and platforms of a reference in its registry, without pulling (GET /distribution). */
struct image_remote { char *digest, *media_type; int64_t size; struct strs architectures, oss; };
typedef void image_inspect_remote_fn(void *arg, const struct image_remote *r, const struct err *e);
void image_inspect_remote(struct image_store *s, const char *ref, const char *auth,
                          image_inspect_remote_fn *done, void *arg);

#endif
