/* The Docker Engine HTTP API over the parts of a node. One behaviour for every version 1.24..1.44 and for
 * unversioned paths. Cluster objects are read and written at the leader: on another manager the request is
 * handed over to it byte for byte; on a worker it is refused as Docker refuses it. Design: engine-api.md. */
#ifndef SHOAL_API_H
#define SHOAL_API_H

#include <shoal/agent.h>
#include <shoal/http.h>
#include <shoal/image.h>
#include <shoal/manager.h>
#include <shoal/runtime.h>

struct api;

struct node_init { char *advertise_addr, *managers; int64_t replace_after; uint16_t control_port; struct strs address_pools; uint32_t subnet_size; int availability; bool autolock; };
typedef void node_progress_fn(void *arg, const char *line); /* it goes on trying */
struct node_join { char *token, *advertise_addr; struct strs remote_addrs; uint16_t control_port; int availability; bool never_manager;
                   node_progress_fn *progress; /* with the arg of done; or NULL */ };
struct node_restore { char *advertise_addr; int64_t wait_ns; struct backup_state *state; /* taken */ };
typedef void node_done_fn(void *arg, const struct err *e); /* e NULL: done */

/* What the node lends the API; all callable at any time. */
struct api_backend {
    void *arg;
    struct loop *loop;
    struct runtime *runtime;
    struct image_store *images;
    struct manager *(*manager)(void *arg); /* NULL: no manager here */
    struct agent *(*agent)(void *arg);     /* NULL: in no cluster */
    struct overlay *(*overlay)(void *arg);
    struct executor *(*executor)(void *arg); /* NULL: in no cluster */
    const char *(*node_id)(void *arg);     /* NULL: in no cluster */
    const char *(*node_addr)(void *arg);   /* NULL: in no cluster */
    uint16_t control_port;
    const char *root_dir;
    const char *const *insecure_registries; /* NULL-terminated, may be NULL */
    /* A byte stream that ends in the API of another node (internal: cluster-authenticated). NULL with e. */
    struct stream *(*open_node)(void *arg, const char *node_id, struct err *e);
    void (*init)(void *arg, const struct node_init *in, node_done_fn *done, void *done_arg);
    void (*join)(void *arg, const struct node_join *in, node_done_fn *done, void *done_arg);
    void (*restore)(void *arg, struct node_restore *in, node_done_fn *done, void *done_arg);
    void (*leave)(void *arg, bool force, node_done_fn *done, void *done_arg);
    bool (*locked)(void *arg); /* waits for the unlock key */
    void (*unlock)(void *arg, const uint8_t key[32], node_done_fn *done, void *done_arg);
};

struct api *api_new(const struct api_backend *b);
void api_free(struct api *a);
/* Serves a connection of the local socket. */
void api_serve(struct api *a, struct stream *s);
/* Serves a channel opened by another node; from_manager: it may do everything a local client may; a worker
 * may only read logs of its own tasks (nothing yet). */
void api_serve_peer(struct api *a, struct stream *s, bool from_manager);
/* A node of the cluster changed (now NULL: was removed): becomes an event on managers. */
void api_node_event(struct api *a, const struct node *old, const struct node *now);
/* Requests that wait for a leader look again. */
void api_leader_changed(struct api *a);
/* A container's status changed: becomes an event of GET /events. */
void api_container_event(struct api *a, const struct container *c);

#endif
