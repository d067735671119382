/* Blobs from other nodes of the cluster. Four parts:
 *   messages    field tables, framed on a channel of a link; image_held travels as a message of its own
 *   tracker     (pure, tracker.c; on managers) knows which node holds which blob, and for each blob that is missing
 *               somewhere lets one node read the registry while the others wait for it
 *   asker       (ask_io.c; inside a pull) asks the blob's tracker, then its holders, several at once
 *   holder      (serve_io.c) gives blobs by digest, to members only
 * All state is soft. Who asks keeps a channel to the tracker open as long as it is at it: the channel is place in the
 * queue, lease and share of a holder's upload in one, and whatever ends the asker ends it. A tracker or holder that is
 * lost costs time, and at worst one more read of the registry. No byte of a peer counts before the whole blob has the
 * digest that was asked for.
 *
 * Private images. The nodes of a cluster are one trust domain: blobs are given by digest to any member, as Spegel does,
 * because a digest is learnt only from a manifest, and a manifest is asked of the registry first, with the credentials
 * of whoever pulls: a user that may not pull it gets none, here as there. What peers say of a name counts only
 *   - for a task: a manager answers, to the node that a task with this image is assigned to, and to no other;
 *   - when the registry did not refuse: one that says "denied" or "not found" (many hide so what one may not see) is
 *     overruled only for images that never came from a registry (loaded, imported), which it cannot know.
 * A pull by hand (image pull, run) therefore never gets more than the registry gives; it only gets it faster.
 *
 * A name is a node's bare word, and any worker may give it. So a pinned reference takes its own digest and no other; where
 * an image came from is believed only of the digest that it was fetched by; and by a tag, what managers have goes before
 * what workers have. An image by a tag that no registry and no manager has is whatever some node says it is: pin those. */
#ifndef SHOAL_IMAGE_PEERS_H
#define SHOAL_IMAGE_PEERS_H

#include <shoal/image.h>
#include <shoal/stream.h>

enum {
    IMAGE_FRAME_MAX = 16 << 10,    /* bytes of a framed message */
    IMAGE_MARK_SIZE = 8,           /* bytes of a digest that stand for it in image_held */
    IMAGE_MARKS_MAX = 16384,       /* blobs of a node that are told of */
    IMAGE_NAMES_MAX = 4096,
    IMAGE_SOURCES_MAX = 3,         /* holders that give one blob at once */
    IMAGE_UPLOADS_MAX = 8,         /* pieces that a node gives at once; others wait in a queue */
    IMAGE_UPLOADS_SHARE = 3,       /* of them to one node while others wait; IMAGE_UPLOADS_ONE ever */
    IMAGE_UPLOADS_ONE = 6,
    IMAGE_UPLOADS_WAITING_MAX = 256, /* REFUSE beyond */
    IMAGE_UPLOADS_WAITING_SHARE = 32, /* of one node, once half of the queue is full */
    IMAGE_PIECE_SIZE = 512 << 10,  /* bytes of a blob asked for at once */
    IMAGE_WINDOW = 8,              /* pieces of a blob under way or waiting for their turn: 4 MiB */
    IMAGE_WISHES_MAX = 256,        /* blobs that one node may ask a tracker for at a time; REFUSE beyond */
    IMAGE_LEASE_MS = 60000,        /* so long one node alone reads a blob from the registry */
    IMAGE_OPEN_MS = 10000,         /* so long everybody may, after the registry did not give it to one */
    IMAGE_STALL_MS = 30000,        /* a holder that completes no piece for so long is left */
};

/* ---- messages ---- */
extern const char *const image_ask_names[], *const image_answer_names[];
enum image_ask_kind { IMAGE_ASK_WHERE, IMAGE_ASK_NAME, IMAGE_ASK_GET, IMAGE_ASK_BAD, IMAGE_ASK_FOUND, IMAGE_ASK_FAILED };
enum image_answer_kind { IMAGE_ANSWER_ERROR, IMAGE_ANSWER_SOURCES, IMAGE_ANSWER_REGISTRY, IMAGE_ANSWER_NAME, IMAGE_ANSWER_BYTES };

#define image_ask_FIELDS(X, T)                                                                             \
    X(T, ENUM, kind, _, 1, "Kind", "where, then bad, found or failed; or name; or get", .names = image_ask_names) \
    X(T, STR, digest, _, 2, "Digest", "of a blob", .max = 71)                                              \
    X(T, STR, name, _, 3, "Name", "of an image, as the task has it", .max = 1024)                          \
    X(T, UINT, offset, _, 4, "Offset", "get: first byte", .max = INT64_MAX)                                \
    X(T, UINT, size, _, 5, "Size", "get: bytes", .max = IMAGE_PIECE_SIZE)                                  \
    X(T, STR, node, _, 6, "Node", "bad: the holder that is of no use", .max = 25)
REC_DECLARE(image_ask)

#define image_answer_FIELDS(X, T)                                                                          \
    X(T, ENUM, kind, _, 1, "Kind", "", .names = image_answer_names)                                        \
    X(T, STRS, nodes, _, 2, "Nodes", "sources", .max = IMAGE_SOURCES_MAX)                                  \
    X(T, STR, manifest, _, 3, "Manifest", "name: digest, perhaps of an index", .max = 71)                                       \
    X(T, UINT, size, _, 4, "Size", "name: of the manifest; bytes: how many follow", .max = INT64_MAX)      \
    X(T, STR, origin, _, 5, "Origin", "name: repository@digest it came from a registry by; none: it is local", .max = 1024) \
    X(T, UINT, code, _, 6, "Code", "error: enum err_code", .max = 1000)                                    \
    X(T, STR, error, _, 7, "Error", "", .max = 512)
REC_DECLARE(image_answer)

#define held_image_FIELDS(X, T)                                                                            \
    X(T, STR, name, _, 1, "Name", "familiar, with tag or digest", .max = 1024)                             \
    X(T, STR, manifest, _, 2, "Manifest", "or index, by the digest of which it came", .max = 71)           \
    X(T, UINT, size, _, 3, "Size", "of the manifest", .max = 4 << 20)                                      \
    X(T, STR, origin, _, 4, "Origin", "as in an answer", .max = 1024)                                      \
    X(T, TIME, created, _, 5, "Created", "the newest image of a name is the one")
REC_DECLARE(held_image)

#define image_held_FIELDS(X, T)                                                                            \
    X(T, BYTES, marks, _, 1, "Marks", "first 8 bytes of each digest, ascending", .max = IMAGE_MARKS_MAX * IMAGE_MARK_SIZE) \
    X(T, LIST, images, held_image, 2, "Images", "", .max = IMAGE_NAMES_MAX)
REC_DECLARE(image_held)

void image_frame(const struct rec *t, const void *r, struct sb *out); /* appends length and record */
/* Bytes used; 0: more are needed. E_CORRUPT, E_TOO_BIG. */
long image_unframe(const struct rec *t, void *ret, const char *p, size_t size, struct err *e) must_check;
/* Holds the answer to a name to what can be checked: E_CORRUPT when the reference is pinned to another digest; an origin is
 * forgotten unless it is of the manifest itself. */
int image_answer_check(struct image_answer *a, const struct image_ref *ref, struct err *e) must_check;
/* An ask that makes sense by itself: digests are digests, what its kind needs is there. */
int image_ask_check(const struct image_ask *a, struct err *e) must_check;

/* ---- tracker ---- */
struct image_tracker;
struct image_wish; /* one node that asks for one blob */
struct image_tracker *image_tracker_new(void);
void image_tracker_free(struct image_tracker *t); /* takes NULL; wishes are dropped before */
void image_tracker_held(struct image_tracker *t, const char *node, const struct image_held *h); /* all that it holds */
void image_tracker_gone(struct image_tracker *t, const char *node);
/* NULL: too many of this node. arg comes back with the verdicts. */
struct image_wish *image_tracker_ask(struct image_tracker *t, const char *node, const char *digest, void *arg);
void image_tracker_bad(struct image_tracker *t, struct image_wish *w, const char *source); /* asks on, without it */
void image_tracker_found(struct image_tracker *t, struct image_wish *w); /* its node holds it now */
void image_tracker_failed(struct image_tracker *t, struct image_wish *w); /* the registry did not give it */
void image_tracker_drop(struct image_tracker *t, struct image_wish *w);
struct image_verdict { void *arg; bool registry; unsigned n; const char *nodes[IMAGE_SOURCES_MAX]; };
/* The next one that is due, each once; call after every change and at image_tracker_due(). Borrowed until the next call. */
bool image_tracker_next(struct image_tracker *t, int64_t now_ms, struct image_verdict *ret);
int64_t image_tracker_due(const struct image_tracker *t); /* INT64_MAX: nothing is */
/* The newest image by this name that a manager has, else that any node has; a creation after now does not count. A pinned
 * name: that digest only. NULL: none. Borrowed. */
const struct held_image *image_tracker_name(const struct image_tracker *t, const char *name, const char *const *managers,
                                            unsigned n_managers, int64_t now_ns);
/* Which of n trackers (ids) a digest belongs to, by rendezvous hashing: nth 0 the first choice, 1 the next. -1: none. */
int image_tracker_choose(const char *const *ids, unsigned n, const char *digest, unsigned nth);

/* ---- asker and holder, seen from the node ---- */
typedef void image_reached_fn(void *arg, struct stream *s /* taken; NULL: it is not to be reached */);
struct image_peers_hooks {
    void *arg;
    /* A channel to the nth choice among the trackers of a digest; of names (digest NULL): a manager, nth 0. NULL: none. */
    struct stream *(*tracker)(void *arg, const char *digest, unsigned nth);
    unsigned (*n_trackers)(void *arg);
    /* A channel to a node. fn comes once, at the end of this turn or later. */
    void (*reach)(void *arg, const char *node_id, image_reached_fn *fn, void *fn_arg);
    void (*held_changed)(void *arg);
};
/* The node entered a cluster; h NULL: it left it, and what is under way goes on without peers. */
void image_peers_set(struct image_store *s, const struct image_peers_hooks *h);
/* What this node holds; cleared by the caller. */
void image_peers_held(struct image_store *s, struct image_held *ret);
/* A member asks for a piece (kind get, checked); takes s. */
void image_peers_serve(struct image_store *s, const char *node, struct stream *stream, const struct image_ask *ask);

/* For a task: as image_pull(), and what the registry does not give is looked for in the cluster. */
void image_pull_for_task(struct image_store *s, const char *ref, const char *auth, image_pull_done_fn *done, void *arg);
/* From the cluster alone: an image that another node spreads. */
struct image_offer { char *manifest, *from /* node id */; int64_t size; struct strs tags, digests; };
void image_offer_clear(struct image_offer *o);
int image_offer_make(struct image_store *s, const char *name, struct image_offer *ret, struct err *e) must_check; /* but from */
void image_take(struct image_store *s, const struct image_offer *o, image_progress_fn *progress, image_pull_done_fn *done,
                void *arg);

#endif
