/* What the files of the image folder share. Blobs, layers, loading and pulling run on worker
 * threads: their functions take the root path and touch nothing of struct image_store, which
 * belongs to the loop's thread. */
#ifndef SHOAL_IMAGE_INTERNAL_H
#define SHOAL_IMAGE_INTERNAL_H

#include <shoal/image_peers.h>
#include <shoal/base/list.h>
#include <shoal/base/mem.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    IMAGE_MANIFEST_MAX = 4 << 20,  /* bytes of a manifest or index */
    IMAGE_CONFIG_MAX = 8 << 20,    /* bytes of a configuration */
    IMAGE_LAYERS_MAX = 125,        /* as Docker: what overlayfs takes below */
    IMAGE_ENTRIES_MAX = 4 << 20,   /* entries of one layer */
    IMAGE_PATH_MAX = 4095,         /* bytes of one entry's path or link */
};
#define IMAGE_LAYER_MAX (INT64_C(256) << 30) /* bytes of one unpacked layer */
#define IMAGE_LAYER_FREE (INT64_C(1) << 30)  /* up to here no bound by compression ratio */
enum { IMAGE_RATIO_MAX = 200 };

/* ---- ref.c ---- */
bool image_digest_ok(const char *digest); /* "sha256:" and 64 lower-case hex digits; NULL: false */
const char *image_digest_hex(const char *digest);  /* of a good digest: the 64 digits */
char *image_digest_of(const uint8_t sum[32]);      /* "sha256:..." */
char *image_digest_bytes(const void *p, size_t size);
char *image_ref_name(const struct image_ref *r);   /* familiar, without tag and digest */

/* ---- config.c ---- */
const char *image_arch(void);                      /* of this build, as Go spells it */
const char *image_variant(void);                   /* "v8", "v7" or NULL */
/* List of strings below a JSON map; absent and null are empty. */
int image_strs_from(struct strs *ret, const struct val *map, const char *name,
                    struct err *e) must_check;

/* ---- changes.c: the lines of `docker import --change` ---- */
int image_changes_apply(struct image_config *c, const char *const *changes,
                        struct err *e) must_check;
/* The JSON of a configuration made here: one layer, created now. */
char *image_config_write(const struct image_config *c, const char *created, const char *comment);

/* ---- manifest.c ---- */
struct image_desc {
    char *media_type, *digest, *ref_name; /* ref_name: annotation, may be NULL */
    char *architecture, *os, *variant;    /* of an index, may be NULL */
    int64_t size;
};
struct image_manifest {
    bool is_index;
    char *media_type;
    struct image_desc config;             /* of a manifest */
    struct image_desc *v;                 /* layers bottom first, or the manifests of an index */
    uint32_t n;
    char *raw;                            /* the document itself; its digest is the manifest's */
    size_t raw_size;
};
/* media_type: what the registry said (may be NULL); the document's own mediaType goes first. */
int image_manifest_parse(struct image_manifest *ret, const char *json, size_t size,
                         const char *media_type, struct err *e) must_check;
void image_manifest_clear(struct image_manifest *m);
void image_desc_clear(struct image_desc *d);
void image_desc_copy(struct image_desc *dst, const struct image_desc *src);
/* The entry of an index for linux on this build's architecture; NULL: none. */
const struct image_desc *image_manifest_choose(const struct image_manifest *m);

/* ---- blob_io.c ---- */
char *image_tmp_path(const char *root, const char *kind); /* a new name below ROOT/tmp */
char *image_blob_path(const char *root, const char *digest);
bool image_blob_exists(const char *root, const char *digest);
/* Reads and verifies. */
int image_blob_read(const char *root, const char *digest, size_t max, char **ret, size_t *ret_size,
                    struct err *e) must_check;
struct image_blob_writer; /* a file in ROOT/tmp that is hashed while it grows */
/* digest NULL: whatever comes. More than max bytes are refused. */
int image_blob_begin(struct image_blob_writer **ret, const char *root, const char *digest,
                     int64_t max, struct err *e) must_check;
/* The same for a download: goes on after what an earlier one left (image_blob_size), and leaves it again when aborted.
 * Who has unpacked it forgets it. One at a time has a digest's file; a second one begins its own. */
int image_blob_resume(struct image_blob_writer **ret, const char *root, const char *digest, int64_t max,
                      struct err *e) must_check;
void image_blob_forget(const char *root, const char *digest);
void image_partials_clean(const char *root, int64_t older_s);
int image_blob_add(struct image_blob_writer *w, const void *p, size_t size,
                   struct err *e) must_check;
int image_blob_restart(struct image_blob_writer *w, struct err *e) must_check; /* back to empty */
int64_t image_blob_size(const struct image_blob_writer *w);
/* Verifies the digest; w is gone in any case, and its file too on error. */
int image_blob_keep(struct image_blob_writer *w, char **ret_digest, struct err *e) must_check;
int image_blob_spool(struct image_blob_writer *w, char **ret_path, char **ret_digest,
                     struct err *e) must_check;
void image_blob_abort(struct image_blob_writer *w); /* takes NULL */
int image_blob_put(const char *root, const void *p, size_t size, char **ret_digest,
                   struct err *e) must_check;

/* ---- layer_io.c ---- */
struct image_layer_job {
    const char *root, *archive;   /* store, file to unpack */
    const char *diff_id;          /* expected; NULL: whatever it is (import) */
    const atomic_bool *cancel;    /* may be NULL */
    void (*progress)(void *arg, int64_t current, int64_t total); /* compressed bytes; may be NULL */
    void *arg;
};
int image_layer_unpack(const struct image_layer_job *job, char **ret_diff_id /* may be NULL */,
                       struct err *e) must_check;
bool image_layer_exists(const char *root, const char *diff_id);
char *image_layer_dir(const char *root, const char *diff_id);
int64_t image_layer_size(const char *root,
                         const char *diff_id); /* bytes of its files; 0: unknown */
/* After a start: layers that a power cut may have spoilt go, renamed into tmp like all that is retired; the paths are
 * added to ret_gone. *ret_unsettled: some of this boot wait for image_layers_settle(). */
void image_layers_check(const char *root, struct strs *ret_gone, bool *ret_unsettled);
/* Waits until all is on the disk and notes it. Slow; any thread. */
void image_layers_settle(const char *root);
/* Takes a layer away in one go: renamed into tmp, which the caller deletes. NULL: it was not
 * there. */
char *image_layer_retire(const char *root, const char *hex);

/* ---- kept_io.c: the packed bytes of a layer ---- */
struct image_kept { char digest[72]; int64_t size; char packing[8]; }; /* "tar", "gzip" or "zstd" */
bool image_kept_find(const char *root, const char *diff_id, struct image_kept *ret); /* ret may be NULL */
/* Keeps a file whose digest and diff id were verified; the file itself stays the caller's. */
int image_kept_put(const char *root, const char *diff_id, const char *path, const char *digest,
                   struct err *e) must_check;

/* ---- parts_io.c: what an image consists of, to save or push it ---- */
/* The manifest it has if all its blobs are here, else a new one over what is here. */
int image_parts(const char *root, const char *id, const char *manifest, const struct strs *diff_ids,
                struct image_manifest *ret, struct err *e) must_check;

/* ---- layer_fs_io.c: writing below a folder and nowhere else ---- */
struct image_fs; /* one layer being written */
int image_fs_open(struct image_fs **ret, const char *dir, struct err *e) must_check;
void image_fs_free(struct image_fs *fs); /* takes NULL */
struct archive;
struct archive_entry;
int image_fs_add(struct image_fs *fs, struct archive *a, struct archive_entry *entry,
                 struct err *e) must_check;
int image_fs_finish(struct image_fs *fs,
                    struct err *e) must_check; /* modes and times of folders */
int64_t image_fs_size(const struct image_fs *fs);

/* ---- load_io.c ---- */
struct image_loaded {
    char *id;
    char *manifest;            /* digest, may be NULL */
    struct strs tags, digests; /* full names */
}; /* configuration and manifest are stored */
struct image_loaded_list { struct image_loaded *v; uint32_t n; };
void image_loaded_clear(struct image_loaded_list *l);
struct image_loaded *image_loaded_add(struct image_loaded_list *l, const char *id);
int image_load_archive(const char *root, const char *archive, struct image_loaded_list *ret,
                       struct err *e) must_check;

/* ---- store_io.c ---- */
struct image_item {
    struct list_node node;
    struct image image;
};
struct image_pull;
struct image_peers;
/* ---- silence.c: registries that did not answer a moment ago ---- */
enum { IMAGE_SILENT_MAX = 16, IMAGE_SILENCE_MS = 30000 };
struct image_silence { struct image_silent { char *host; int64_t until_ms; } v[IMAGE_SILENT_MAX]; };
void image_silence_note(struct image_silence *s, const char *host, bool silent, int64_t now_ms); /* not silent: it answered */
bool image_silence_has(const struct image_silence *s, const char *host, int64_t now_ms);
void image_silence_clear(struct image_silence *s);

struct image_store {
    struct loop *loop;
    char *root;
    struct strs insecure, mirrors;
    char *certs_dir;
    struct list_node images;  /* image_item */
    struct list_node pulls;   /* pull_io.c */
    struct image_peers *peers; /* ask_io.c; never NULL */
    struct image_silence silence;
    unsigned refs;            /* the owner, and every job whose end comes back here */
    unsigned busy; /* loads and pulls that may rely on layers: nothing is swept meanwhile */
    bool closed, sweep_wanted;
};
void image_store_hold(struct image_store *s);    /* refs and busy */
void image_store_unhold(struct image_store *s);  /* sweeps when the last is gone; s may be gone */
/* Records what a worker made (layers and configuration are on disk) and saves the index. */
int image_store_commit(struct image_store *s, const struct image_loaded_list *l, struct strs *names,
                       struct err *e) must_check;
void image_store_drop_tmp(struct image_store *s,
                          char *path /* taken */); /* deletes on the bulk lane */
void image_pulls_stop(struct image_store *s);

/* ---- challenge.c: what a registry wants to see (pure) ---- */
struct image_challenge { bool bearer; char *realm, *service, *scope; };
/* The value of a WWW-Authenticate header; false: neither Bearer with a realm nor Basic. */
bool image_challenge_parse(struct image_challenge *ret, const char *value);
void image_challenge_clear(struct image_challenge *c);
struct image_credentials { char *user, *password, *identity_token, *registry_token; };
int image_credentials_parse(struct image_credentials *ret, const char *json,
                            struct err *e) must_check;
void image_credentials_clear(struct image_credentials *c); /* wipes */
bool image_token_ok(const char *token); /* may stand in a header */
char *image_basic(const struct image_credentials *c); /* "Basic ..." */
/* What the errors of a registry's reply say, made printable; heap, never NULL. */
char *image_registry_reason(const char *body, size_t size);

/* ---- certs_io.c: what is set up for one registry ---- */
struct image_certs { char *ca, *cert, *key; }; /* PEM text; paths. NULL: none */
int image_certs_read(struct image_certs *ret, const char *dir, const char *host, struct err *e) must_check;
void image_certs_clear(struct image_certs *c);

/* ---- registry_io.c: one registry, one thread ---- */
struct image_registry;
struct image_registry_config {
    const char *host, *path, *familiar; /* of the reference; path NULL: a login only */
    const char *base;          /* "https://MIRROR" in place of the host itself; no credentials go there. May be NULL */
    const char *certs_dir;     /* may be NULL */
    const char *authorization; /* from another image_registry of the same pull; may be NULL */
    bool insecure, push, quick;         /* quick: one attempt, a short wait for the connection */
    unsigned connect_ms;                /* that wait, of all that comes before the question; 0: the usual one */
    const char *auth;                   /* JSON or NULL */
    bool (*wait)(void *arg, int ms);    /* sleeps; true: cancelled, give up */
    bool (*cancelled)(void *arg);
    void *arg;
};
const char *image_registry_authorization(const struct image_registry *r); /* NULL: none needed */
int image_registry_open(struct image_registry **ret, const struct image_registry_config *cfg,
                        struct err *e) must_check;
bool image_registry_answered(const struct image_registry *r); /* to anything, with any status */
void image_registry_close(struct image_registry *r); /* takes NULL */
/* reference: tag or digest; verified if a digest. */
int image_registry_manifest(struct image_registry *r, const char *reference,
                            struct image_manifest *ret, struct image_desc *ret_desc,
                            struct err *e) must_check;
/* Goes on where w is, if the registry can. progress: bytes so far. Refused beyond desc->size. */
int image_registry_blob(struct image_registry *r, const struct image_desc *desc,
                        struct image_blob_writer *w, void (*progress)(void *arg, int64_t current),
                        void *arg, struct err *e) must_check;

/* Push. The blob's bytes are those of the file at path. from: a repository there that may have them, or NULL. */
int image_registry_has(struct image_registry *r, const struct image_desc *desc, bool *ret, struct err *e) must_check;
int image_registry_push_blob(struct image_registry *r, const struct image_desc *desc, const char *path,
                             const char *from, bool *ret_mounted, void (*progress)(void *arg, int64_t current),
                             void *arg, struct err *e) must_check;
int image_registry_push_manifest(struct image_registry *r, const char *reference, const struct image_manifest *m,
                                 struct err *e) must_check;
int image_registry_login(struct image_registry *r, struct err *e) must_check; /* E_DENIED */

/* ---- fetch_io.c: the thread of a pull; owns this until it has ended ---- */
struct image_fetch {
    char *root, *familiar, *auth;
    struct image_ref ref;
    bool insecure, quick; /* quick: somebody waits for a mere look, as `docker service create` does */
    pthread_mutex_t lock;
    pthread_cond_t wake;  /* CLOCK_MONOTONIC; signalled with stop */
    atomic_bool stop;     /* cancelled, or a layer failed */
    bool closed;          /* under lock: cancelled */
    char *certs_dir;
    struct strs mirrors;  /* of this host, asked in turn before it */
    struct image_peers *peers; /* the store's */
    bool task;            /* the cluster is asked for what the registry does not give */
    bool silent;          /* its registry did not answer a moment ago */
    char *named;          /* the reference as it was given */
    struct image_offer offer; /* of a node that spreads an image: nobody else is asked */
    const char *base;     /* the one being asked; NULL: the host itself */
    /* Any thread of the fetch; copies what it is given. */
    void (*emit)(void *arg, const char *id, const char *status, int64_t current, int64_t total);
    void *arg;
    /* of a push */
    char *id, *manifest;                 /* the image, as struct image has it */
    struct strs diff_ids, sources;       /* sources: for each layer a repository there that may have it, or "" */
    /* result */
    int code;
    struct err e;
    struct image_loaded_list loaded;
    struct image_remote remote;
    int64_t size;                        /* of the manifest pushed */
    bool answered, heard, unheard;       /* the registry answered, or it was waited for in vain; or neither */
};
void image_fetch_pull(struct image_fetch *f);
void image_fetch_remote(struct image_fetch *f);
void image_fetch_stop(struct image_fetch *f);
int image_fetch_open(struct image_fetch *f, const char *authorization, bool push, struct image_registry **ret,
                     struct err *e) must_check;
void image_fetch_tell(struct image_fetch *f, const char *id, const char *status);
void image_fetch_fail(struct image_fetch *f, int code, const struct err *e); /* the first counts, and stops the others */

/* ---- take_io.c: the same without a registry ---- */
void image_fetch_take(struct image_fetch *f); /* the offer */
/* The image of f->ref as the cluster has it; refused: the registry refused it, so only an image that is none of its
 * counts. -E_NOT_FOUND: the cluster has it not, or does not tell. */
int image_fetch_from_cluster(struct image_fetch *f, bool refused, struct err *e) must_check;
/* r NULL: all of it from peers. */
int image_fetch_parts(struct image_fetch *f, struct image_registry *r, const struct image_manifest *m, bool *ret_all_there,
                      struct err *e) must_check;
/* A blob from peers, or from r (may be NULL) if they do not have it; verified, in a file of our own, which other nodes
 * may read until image_get_forget(). tell may be NULL. */
typedef void image_bytes_fn(void *arg, int64_t current);
int image_fetch_blob(struct image_fetch *f, struct image_registry *r, const struct image_desc *desc, image_bytes_fn *tell,
                     void *arg, char **ret_path, struct err *e) must_check;

/* ---- pieces.c ---- */
struct image_piece { int64_t offset; uint32_t size, got; int source; /* -1: to be asked */ };
struct image_pieces {
    int64_t size, next, head; /* bytes of the blob; first not in a piece yet; first not handed on */
    struct image_piece v[IMAGE_WINDOW]; /* a ring */
    unsigned first, n;
};
void image_pieces_init(struct image_pieces *p, int64_t offset, int64_t size);
int image_pieces_ask(struct image_pieces *p, int source); /* slot of a piece to ask it for; -1: none */
void image_pieces_got(struct image_pieces *p, int slot, uint32_t n);
void image_pieces_lost(struct image_pieces *p, int source); /* what it has not given is asked of others */
int image_pieces_take(struct image_pieces *p); /* slot of the next whole piece in order, free from now on; -1: none */
bool image_pieces_done(const struct image_pieces *p);

/* ---- ask_io.c: blobs from peers, for the thread of a pull ---- */
struct image_peers *image_peers_new(struct image_store *s);
void image_peers_free(struct image_peers *p);
void image_peers_wake(struct image_peers *p);    /* threads look again whether they are to stop; any thread */
void image_peers_changed(struct image_store *s); /* what is held */
enum image_word {
    IMAGE_WAIT,     /* never returned */
    IMAGE_BYTES,    /* the next ones, in order */
    IMAGE_WHOLE,    /* all were given */
    IMAGE_REGISTRY, /* the caller is to read the rest from the registry */
    IMAGE_NONE,     /* no node gives it */
    IMAGE_STOPPED,
};
struct image_get;
/* alone: no registry will do; from: a node that has it (may be NULL). NULL: this node is in no cluster. */
struct image_get *image_get_blob(struct image_fetch *f, const char *digest, int64_t offset, int64_t size, bool alone,
                                 const char *from);
enum image_word image_get_next(struct image_get *g, char **ret /* caller frees */, size_t *ret_size);
/* What came has another digest: once more from the start; blame: and not from these. */
void image_get_spoilt(struct image_get *g, bool blame);
/* path: the verified file, given to others until image_get_forget(); NULL: it was not to be had. g is gone. */
void image_get_end(struct image_get *g, const char *path);
void image_get_forget(struct image_fetch *f, const char *digest);
/* E_NOT_FOUND: the cluster has no such image, or this node may not know it. ret is to be cleared. */
int image_get_name(struct image_fetch *f, const char *name, struct image_answer *ret, struct err *e) must_check;

/* ---- serve_io.c ---- */
struct image_serving { struct list_node running, waiting; unsigned n_running, n_waiting; struct loop_timer *tick; };
void image_serving_init(struct image_serving *v, struct image_peers *p);
void image_serving_stop(struct image_serving *v); /* all uploads */
struct image_serving *image_peers_serving(struct image_peers *p);
struct image_store *image_peers_store(struct image_peers *p);
int image_peers_open_blob(struct image_peers *p, const char *digest); /* fd, or -1 */

/* ---- push_io.c: the thread of a push or a login ---- */
void image_fetch_push(struct image_fetch *f);
void image_fetch_login(struct image_fetch *f);

/* ---- pack_io.c ---- */
/* A layer kept as a plain tar becomes gzip, and is kept so. */
int image_pack(const char *root, const char *diff_id, const struct image_kept *plain, const atomic_bool *cancel,
               struct err *e) must_check;

#endif
