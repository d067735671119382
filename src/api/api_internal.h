/* Shared by the API's files. A call is one request from its route to its reply; it lives on the heap because most
 * answers come later. The client may go meanwhile: then c->r is NULL and replies go nowhere. */
#ifndef API_INTERNAL_H
#define API_INTERNAL_H

#include <shoal/api.h>
#include <shoal/base/list.h>
#include <shoal/base/log.h>
#include <shoal/base/version.h>

#define API_VERSION "1.44"
#define API_MIN_VERSION "1.24"

enum { BODY_MAX_BYTES = 4 << 20, EVENTS_KEPT = 1024 };

struct route;
struct call {
    struct api *api;
    const struct route *route;
    struct http_request *r;   /* NULL: gone */
    char *param[2];           /* from the path */
    bool from_peer;
    char id[26];              /* of what control_* made */
    struct err warning;
    uint64_t place;           /* in the log, of what the reply says; 0: of no such thing */
    /* for what is under way; who sets gone frees in it, the call with call_free; NULL: what is under way ends with a reply */
    void *state;
    void (*gone)(struct call *c);  /* the client went: nothing else will be called */
    void (*drain)(struct call *c);
};
typedef void handler_fn(struct call *c);

/* READ, WRITE: of the cluster, at the leader; LOCAL_OR_READ: READ on managers, what this node has elsewhere; ALWAYS: local,
 * also on a locked manager */
enum { ROUTE_ALWAYS, ROUTE_LOCAL, ROUTE_LOCAL_OR_READ, ROUTE_READ, ROUTE_WRITE };
struct route { const char *method, *path; handler_fn *fn; int kind; };
extern const struct route system_routes[], swarm_routes[], key_routes[], service_routes[], network_routes[],
    image_routes[], container_routes[], copy_routes[], exec_routes[], volume_routes[], manager_routes[], backup_routes[], prune_routes[], spread_routes[], trace_routes[]; /* each ended by NULL */

struct api {
    struct api_backend b;
    struct http_server *local, *peer;
    struct map execs;    /* id -> struct exec_box */
    struct list_node leader_waits, relays; /* forward.c */
    struct map watchers, waits; /* pointer text -> struct watch, of GET /events; struct call, of /containers/x/wait */
    struct event *events[EVENTS_KEPT]; /* the last ones, as a ring */
    uint64_t n_events;   /* ever */
    struct map keeps;    /* id -> struct keep, of containers that are no task's */
    void *doors[2];
};

/* ---- api.c ---- */
void call_free(struct call *c);
void reply_json(struct call *c, int status, const char *json);     /* these end the call */
void reply_val(struct call *c, int status, struct val_doc *doc);   /* doc is freed */
void reply_err(struct call *c, const struct err *e);
void reply_error(struct call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void reply_empty(struct call *c, int status);
/* Reads a JSON body (empty: NULL root) and calls fn; malformed ones are answered. fn may keep nothing of doc. */
typedef void body_fn(struct call *c, const struct val *body, const char *text, size_t size);
void with_body(struct call *c, body_fn *fn);
/* For control_*: replies e or 200 with nothing. */
void done_empty(void *arg, int result, const struct err *e);
void done_no_content(void *arg, int result, const struct err *e); /* the same with 204 */
void done_created(void *arg, int result, const struct err *e); /* 201 {"ID": c->id} */
struct manager *call_manager(const struct call *c);
const struct store *call_store(const struct call *c);
const char *query(const struct call *c, const char *name);
bool query_flag(const struct call *c, const char *name); /* 1, true, yes */
bool query_time(const char *text, int64_t *ret_ns);       /* seconds since 1970, or RFC 3339; nothing: 0 */
uint64_t query_version(struct call *c, bool *ok);
void stream_begin(struct call *c, const char *content_type);
void stream_put(struct call *c, const void *p, size_t size);
void stream_done(struct call *c);

/* Leads the call to its handler, here or at the leader, now or when there is one. */
void call_dispatch(struct call *c, const struct route *r);

/* ---- forward.c: requests about the cluster on a manager that does not lead ---- */
void forward_to_leader(struct call *c, const struct route *r);
void no_leader(struct call *c, const struct route *r); /* dispatched again when there is one, refused if that takes too long */
void leader_wait_free(struct call *c);
void leader_wait_gone(struct call *c);
void forward_close(struct api *a);

/* ---- filters.c: {"name":["a"]} or {"name":{"a":true}} ---- */
struct filters { struct val_doc *doc; };
/* allowed: NULL-terminated. */
int filters_parse(const char *text, const char *const *allowed, struct filters *ret, struct err *e) must_check;
void filters_free(struct filters *f);
bool filters_has(const struct filters *f, const char *key);
bool filter_exact(const struct filters *f, const char *key, const char *value);  /* true also when not asked */
bool filter_prefix(const struct filters *f, const char *key, const char *value);
bool filter_name(const struct filters *f, const char *key, const char *value);   /* part of it */
bool filter_labels(const struct filters *f, const char *key, const struct labels *l);
const char *filter_nth(const struct filters *f, const char *key, uint32_t k); /* NULL at the end */
/* until: a unix time, RFC 3339 or how long ago ("24h"); the earliest given. INT64_MAX when there is none. */
int filter_flag(const struct filters *f, const char *key, bool *ret, struct err *e) must_check; /* 1: asked for, 0: not */
int filter_until(const struct filters *f, int64_t now_ns, int64_t *ret_ns, struct err *e) must_check;

/* ---- image_list.c, image_transfer.c ---- */
handler_fn image_list, image_history, image_prune, image_search, image_save, image_push_route, registry_auth;
bool image_in_use(void *arg, const char *id); /* by a container; arg: the api */
void image_event(struct api *a, const char *action, const char *id, const char *name);
/* Adds {"Untagged"}, {"Deleted"} to the list, sends the events, frees both. */
void image_removed(struct api *a, struct val_doc *d, struct val *list, struct strs *untagged, struct strs *deleted);
void transfer_line(struct call *c, const struct image_progress *p);
void progress_line(struct call *c, struct val_doc *d /* taken */, struct val *v);
void error_line(struct call *c, const struct err *e);

/* ---- machine_io.c ---- */
struct machine_facts { char kernel[66], arch[66], os[128], host[256], id[64]; int64_t cpus, memory_bytes; };
void machine_facts(struct machine_facts *ret);
int64_t machine_cpu_ns(void); /* of all processors since the start, idle time too */

/* ---- parts used across files ---- */
void api_event(struct api *a, const char *type, const char *action, const char *id, const struct labels *attributes);
void container_event(struct api *a, const struct container *c, const char *action, const char *key /* or NULL */,
                     const char *value);
void events_container(struct api *a, const struct container *c); /* on each change that the runtime tells of */
void events_free(struct api *a);
handler_fn events_watch;
void container_wait_check(struct api *a, const struct container *c);
void container_wait_over(struct api *a, const struct container *c); /* it does not run and will not by itself */
const struct container *container_of_call(struct call *c); /* by the first parameter; NULL: answered */
/* The request that made it; NULL: none (a task's). Caller frees. */
struct val_doc *container_asked(const struct container *c);
/* "created", ..., also "restarting". */
const char *container_status(const struct api *a, const struct container *c);
bool container_is_task(const struct container *c);
/* Its network, where a reboot has taken it. */
int container_network_again(struct api *a, const struct container *c, struct err *e) must_check;
int container_check_swap(const struct val *host, int64_t memory_bytes, struct err *e) must_check;
int container_check_update(const struct val *body, struct err *e) must_check; /* all of it can be changed */
/* ---- volumes_io.c ---- */
/* "NAME" of ROOT/volumes/NAME/_data; NULL: no volume's folder. Caller frees. */
char *api_volume_name(const struct api *a, const char *path);
/* Refused (E_CONFLICT) while a container uses it. */
int api_volume_remove(struct api *a, const char *name, struct err *e) must_check;
int64_t api_volume_users(const struct api *a, const char *path); /* how many containers */
bool api_volume_is_anonymous(const char *name); /* looks like one that was made without a name, by whomever */
void api_volume_names(const struct api *a, struct strs *ret);
void api_volume_labels(const struct api *a, const char *name, struct labels *ret);
struct val *api_volume_val(const struct api *a, struct val_doc *d, const char *name, const char *path);
/* ---- disk_io.c: what lies below each path, in bytes; takes paths ---- */
typedef void disk_fn(void *arg, const int64_t *sizes);
void disk_measure(struct api *a, struct strs *paths, disk_fn *fn, void *arg);
struct val *container_summary_val(struct call *c, struct val_doc *d, const struct container *x); /* as /containers/json */
void container_put_size(const struct api *a, struct val_doc *d, struct val *v, const struct container *x, int64_t own_bytes);
/* Those that were made with this container, without a name, and that no other uses. */
void api_volumes_of_container_remove(struct api *a, const struct container *c);
/* ---- keeper.c: restarts and healthchecks of containers that are no task's ---- */
void keeper_open(struct api *a);
void keeper_free(struct api *a);
void keeper_event(struct api *a, const struct container *c);
void keeper_rest(struct api *a, const struct container *c); /* one that does not run has no ports */
bool keeper_waits(const struct api *a, const char *id); /* to be restarted after a while */
bool keeper_restarts(const struct api *a, const struct container *c); /* waits for it, or is being started for it */
/* A person starts or stops it: what its policy would do is off. */
void keeper_by_hand(struct api *a, const struct container *c, bool stopped);
/* When it is removed, so are its volumes without a name. */
void keeper_with_volumes(struct api *a, const struct container *c);
const char *keeper_health(const struct api *a, const char *id); /* "none", "starting", "healthy", "unhealthy" */
struct val *keeper_health_val(const struct api *a, const char *id, struct val_doc *d); /* State.Health; NULL: no check */
/* "", "no", "always", "unless-stopped", "on-failure"; anything else is refused. */
int restart_policy_check(const struct val *policy, struct err *e) must_check;
handler_fn service_logs, task_logs, container_logs; /* logs.c */
/* keys.c: what Docker's clients read as TLSInfo; empty without a key. */
struct val *tls_info_val(struct val_doc *d, const struct bytes *ca_public);
handler_fn container_create; /* container_create.c */
handler_fn container_list, container_inspect; /* container_show.c */
handler_fn container_stats, container_top; /* container_stats.c, top_io.c */
handler_fn container_pause, container_unpause, container_rename, container_update; /* container_change.c */
/* Folder of a volume (made when asked), NULL with e. Caller frees. */
char *api_volume_path(const struct api *a, const char *name, bool make, struct err *e);
void exec_free_all(struct api *a);
struct val *exec_ids_val(const struct api *a, const char *container_id, struct val_doc *d); /* those that run; null: none */
bool auth_of(const struct call *c, char **ret_json); /* decoded X-Registry-Auth */
struct val *strs_val(struct val_doc *d, const struct strs *s);
struct val *labels_val(struct val_doc *d, const struct labels *l);
struct val *time_val(struct val_doc *d, int64_t real_ns);
int strs_from_val(struct strs *ret, const struct val *v, const char *path, struct err *e) must_check;

/* ---- network_show.c ---- */
struct val *network_val(struct val_doc *d, const struct network *n);
/* Containers and Peers; with verbose also Services, each with its tasks. */
void network_add_users(struct val_doc *d, struct val *v, const struct store *s, const struct network *n, bool verbose);
/* Ids of networks that a service or a container is on, and ingress, as keys; the others dangle. */
void networks_in_use(const struct store *s, struct map *ret);

#endif
