/* Service and its parts, in the shape of the Docker Engine API (ServiceSpec, TaskSpec, ContainerSpec). */
#ifndef SHOAL_MODEL_SERVICE_H
#define SHOAL_MODEL_SERVICE_H

#include <shoal/model/rec.h>

extern const char *const port_protocol_names[], *const publish_mode_names[], *const endpoint_mode_names[];
extern const char *const restart_condition_names[], *const failure_action_names[], *const update_order_names[];
extern const char *const update_state_names[], *const mount_type_names[];
enum port_protocol { PROTO_TCP, PROTO_UDP, PROTO_SCTP };
enum publish_mode { PUBLISH_INGRESS, PUBLISH_HOST };
enum endpoint_mode { ENDPOINT_VIP, ENDPOINT_DNSRR };
/* How connections are shared out, for the whole life of each: at random, or by the caller's address (the same caller gets the
 * same replica on whichever node it calls, for as long as it is there; rendezvous hashing moves no more than it must). The
 * Engine API has no word for it: label BALANCE_LABEL of the service. */
#define BALANCE_LABEL "shoal.balance"
extern const char *const balance_names[];
enum balance { BALANCE_RANDOM, BALANCE_SOURCE };
enum restart_condition { RESTART_ANY, RESTART_NONE, RESTART_ON_FAILURE };
enum failure_action { FAILURE_PAUSE, FAILURE_CONTINUE, FAILURE_ROLLBACK };
enum update_order { ORDER_STOP_FIRST, ORDER_START_FIRST };
enum update_state {
    UPDATE_NONE, UPDATE_UPDATING, UPDATE_PAUSED, UPDATE_COMPLETED,
    UPDATE_ROLLBACK_STARTED, UPDATE_ROLLBACK_PAUSED, UPDATE_ROLLBACK_COMPLETED
};
enum mount_type { MOUNT_BIND, MOUNT_VOLUME, MOUNT_TMPFS, MOUNT_NPIPE, MOUNT_CLUSTER, MOUNT_IMAGE };

/* Names: [a-zA-Z0-9] then [a-zA-Z0-9_.-]*, at most 63. NULL when good. */
const char *check_name(const char *s);
const char *check_image(const char *s);
const char *check_constraint(const char *s);
const char *check_env(const char *s);
const char *check_abs_path(const char *s);

#define empty_FIELDS(X, T) X(T, BOOL, unused, _, 1, "\x01", "no field: presence only")
REC_DECLARE(empty)

#ifdef FORMAT_NEXT /* what format 2 of the tests writes and format 1 does not */
#define version_NEXT(X, T) X(T, UINT, format, _, 2, "Format", "of the entry of the last change", .since = 2)
#else
#define version_NEXT(X, T)
#endif
#define version_FIELDS(X, T)                                                                      \
    X(T, UINT, index, _, 1, "Index", "log index of the last change", .flags = F_ALWAYS)           \
    version_NEXT(X, T)
REC_DECLARE(version)

#define driver_FIELDS(X, T)                                       \
    X(T, STR, name, _, 1, "Name", "driver", .max = 255)           \
    X(T, LABELS, options, _, 2, "Options", "driver options", .max = 64)
REC_DECLARE(driver)

#define port_FIELDS(X, T)                                                                              \
    X(T, STR, name, _, 1, "Name", "name for SRV", .max = 63)                                           \
    X(T, ENUM, protocol, _, 2, "Protocol", "tcp, udp or sctp", .names = port_protocol_names, .flags = F_ALWAYS)  \
    X(T, UINT, target, _, 3, "TargetPort", "in the container", .min = 1, .max = 65535)                 \
    X(T, UINT, published, _, 4, "PublishedPort", "on the nodes; 0: chosen from 30000-32767", .max = 65535)       \
    X(T, ENUM, mode, _, 5, "PublishMode", "ingress or host", .names = publish_mode_names, .flags = F_ALWAYS)
REC_DECLARE(port)
struct service_spec;
enum balance service_balance(const struct service_spec *s); /* of one that service_spec_normalize() has let pass */
/* What a node with these ports (tcp, udp, udp) uses the published port for itself: a word; NULL: for nothing. */
const char *port_use_of_node(const struct port *p, uint64_t control, uint64_t gossip, uint64_t tunnel);

#define endpoint_spec_FIELDS(X, T)                                                                       \
    X(T, ENUM, mode, _, 1, "Mode", "vip or dnsrr", .names = endpoint_mode_names, .flags = F_LIVE | F_ALWAYS)  \
    X(T, LIST, ports, port, 2, "Ports", "published ports", .max = 256, .flags = F_LIVE)
REC_DECLARE(endpoint_spec)

#define vip_FIELDS(X, T)                                                 \
    X(T, STR, network_id, _, 1, "NetworkID", "network", .max = 64)       \
    X(T, STR, addr, _, 2, "Addr", "address/prefix length", .max = 64)
REC_DECLARE(vip)

#define endpoint_FIELDS(X, T)                                                       \
    X(T, REC, spec, endpoint_spec, 1, "Spec", "as asked", .flags = F_ALWAYS)        \
    X(T, LIST, ports, port, 2, "Ports", "with the published ports chosen", .max = 256, .flags = F_ALWAYS) \
    X(T, LIST, vips, vip, 3, "VirtualIPs", "one a network", .max = 64, .flags = F_ALWAYS)
REC_DECLARE(endpoint)

#define bind_options_FIELDS(X, T)                                                                  \
    X(T, STR, propagation, _, 1, "Propagation", "rprivate, private, rshared, ...", .max = 16)      \
    X(T, BOOL, non_recursive, _, 2, "NonRecursive", "")                                            \
    X(T, BOOL, create_mountpoint, _, 3, "CreateMountpoint", "make the source folder", )            \
    X(T, BOOL, ro_non_recursive, _, 4, "ReadOnlyNonRecursive", "", .flags = F_UNBUILT)             \
    X(T, BOOL, ro_force_recursive, _, 5, "ReadOnlyForceRecursive", "", .flags = F_UNBUILT)
REC_DECLARE(bind_options)

#define volume_options_FIELDS(X, T)                                                       \
    X(T, BOOL, no_copy, _, 1, "NoCopy", "do not fill a new volume from the image")        \
    X(T, LABELS, labels, _, 2, "Labels", "labels of a new volume", .max = 64)             \
    X(T, OPT, driver, driver, 3, "DriverConfig", "only the local driver without options") \
    X(T, STR, subpath, _, 4, "Subpath", "", .max = 4096, .flags = F_UNBUILT)
REC_DECLARE(volume_options)

#define tmpfs_options_FIELDS(X, T)                                   \
    X(T, INT, size_bytes, _, 1, "SizeBytes", "bytes", .min = 0, .max = INT64_MAX) \
    X(T, UINT, mode, _, 2, "Mode", "permission bits", .max = 07777)
REC_DECLARE(tmpfs_options)

#define mount_FIELDS(X, T)                                                                             \
    X(T, ENUM, type, _, 1, "Type", "bind, volume or tmpfs", .names = mount_type_names, .flags = F_ALWAYS) \
    X(T, STR, source, _, 2, "Source", "host path or volume name", .max = 4096)                         \
    X(T, STR, target, _, 3, "Target", "path in the container", .min = 1, .max = 4096, .check = check_abs_path) \
    X(T, BOOL, read_only, _, 4, "ReadOnly", "")                                                        \
    X(T, STR, consistency, _, 5, "Consistency", "", .max = 16, .flags = F_OPAQUE)                      \
    X(T, OPT, bind, bind_options, 6, "BindOptions", "")                                                \
    X(T, OPT, volume, volume_options, 7, "VolumeOptions", "")                                          \
    X(T, OPT, tmpfs, tmpfs_options, 8, "TmpfsOptions", "")
REC_DECLARE(mount)

#define healthcheck_FIELDS(X, T)                                                        \
    X(T, STRS, test, _, 1, "Test", "NONE, CMD argv... or CMD-SHELL text", .max = 256)   \
    X(T, INT, interval, _, 2, "Interval", "ns", .min = 0, .max = INT64_MAX)             \
    X(T, INT, timeout, _, 3, "Timeout", "ns", .min = 0, .max = INT64_MAX)               \
    X(T, INT, retries, _, 4, "Retries", "failures in a row", .min = 0, .max = 1000)     \
    X(T, INT, start_period, _, 5, "StartPeriod", "ns", .min = 0, .max = INT64_MAX)      \
    X(T, INT, start_interval, _, 6, "StartInterval", "ns", .min = 0, .max = INT64_MAX)
REC_DECLARE(healthcheck)

#define dns_config_FIELDS(X, T)                                    \
    X(T, STRS, nameservers, _, 1, "Nameservers", "", .max = 8)     \
    X(T, STRS, search, _, 2, "Search", "", .max = 16)              \
    X(T, STRS, options, _, 3, "Options", "", .max = 16)
REC_DECLARE(dns_config)

#define file_target_FIELDS(X, T)                                                     \
    X(T, STR, name, _, 1, "Name", "path; relative ones below /run/secrets", .max = 4096) \
    X(T, STR, uid, _, 2, "UID", "", .max = 16)                                       \
    X(T, STR, gid, _, 3, "GID", "", .max = 16)                                       \
    X(T, UINT, mode, _, 4, "Mode", "permission bits", .max = 07777)
REC_DECLARE(file_target)

#define secret_ref_FIELDS(X, T)                                      \
    X(T, OPT, file, file_target, 1, "File", "where it appears")      \
    X(T, STR, id, _, 2, "SecretID", "", .max = 64)                   \
    X(T, STR, name, _, 3, "SecretName", "", .max = 64)
REC_DECLARE(secret_ref)

#define config_ref_FIELDS(X, T)                                                 \
    X(T, OPT, file, file_target, 1, "File", "where it appears")                 \
    X(T, STR, id, _, 2, "ConfigID", "", .max = 64)                              \
    X(T, STR, name, _, 3, "ConfigName", "", .max = 64)                          \
    X(T, OPT, runtime, empty, 4, "Runtime", "", .flags = F_UNBUILT)
REC_DECLARE(config_ref)

#define ulimit_FIELDS(X, T)                                    \
    X(T, STR, name, _, 1, "Name", "nofile, nproc, ...", .min = 1, .max = 16) \
    X(T, INT, soft, _, 2, "Soft", "-1: unlimited", .min = -1, .max = INT64_MAX, .flags = F_ALWAYS) \
    X(T, INT, hard, _, 3, "Hard", "-1: unlimited", .min = -1, .max = INT64_MAX, .flags = F_ALWAYS)
REC_DECLARE(ulimit)

#define seccomp_option_FIELDS(X, T)                              \
    X(T, STR, mode, _, 1, "Mode", "default, unconfined, custom", .max = 16) \
    X(T, BYTES, profile, _, 2, "Profile", "JSON", .max = 512 * 1024)
REC_DECLARE(seccomp_option)
#define apparmor_option_FIELDS(X, T) X(T, STR, mode, _, 1, "Mode", "default or disabled", .max = 16)
REC_DECLARE(apparmor_option)
#define privileges_FIELDS(X, T)                                                            \
    X(T, OPT, credential_spec, empty, 1, "CredentialSpec", "Windows", .flags = F_UNBUILT)  \
    X(T, OPT, selinux, empty, 2, "SELinuxContext", "", .flags = F_UNBUILT)                 \
    X(T, OPT, seccomp, seccomp_option, 3, "Seccomp", "")                                   \
    X(T, OPT, apparmor, apparmor_option, 4, "AppArmor", "", .flags = F_UNBUILT)            \
    X(T, BOOL, no_new_privs, _, 5, "NoNewPrivileges", "")
REC_DECLARE(privileges)

#define container_spec_model_FIELDS(X, T)                                                     \
    X(T, STR, image, _, 1, "Image", "reference", .max = 512, .check = check_image)            \
    X(T, LABELS, labels, _, 2, "Labels", "of the container", .max = 512)                      \
    X(T, STRS, command, _, 3, "Command", "replaces the entrypoint", .max = 1024)              \
    X(T, STRS, args, _, 4, "Args", "replaces the image's command", .max = 1024)               \
    X(T, STR, hostname, _, 5, "Hostname", "", .max = 255)                                     \
    X(T, STRS, env, _, 6, "Env", "NAME=value", .max = 2048, .check = check_env)               \
    X(T, STR, dir, _, 7, "Dir", "working directory", .max = 4096)                             \
    X(T, STR, user, _, 8, "User", "name or uid[:gid]", .max = 255)                            \
    X(T, STRS, groups, _, 9, "Groups", "supplementary", .max = 64)                            \
    X(T, OPT, privileges, privileges, 10, "Privileges", "")                                   \
    X(T, BOOL, init, _, 11, "Init", "a reaper as process 1")                                  \
    X(T, STR, stop_signal, _, 12, "StopSignal", "", .max = 16)                                \
    X(T, INT, stop_grace, _, 13, "StopGracePeriod", "ns; 0: 10 s", .min = 0, .max = INT64_MAX) \
    X(T, BOOL, tty, _, 14, "TTY", "")                                                         \
    X(T, BOOL, open_stdin, _, 15, "OpenStdin", "")                                            \
    X(T, BOOL, read_only, _, 16, "ReadOnly", "root filesystem")                               \
    X(T, LIST, mounts, mount, 17, "Mounts", "", .max = 256)                                   \
    X(T, OPT, healthcheck, healthcheck, 18, "Healthcheck", "")                                \
    X(T, STRS, hosts, _, 19, "Hosts", "IP name [alias...]", .max = 256)                       \
    X(T, OPT, dns, dns_config, 20, "DNSConfig", "")                                           \
    X(T, LIST, secrets, secret_ref, 21, "Secrets", "", .max = 256)                            \
    X(T, LIST, configs, config_ref, 22, "Configs", "", .max = 256)                            \
    X(T, LABELS, sysctls, _, 23, "Sysctls", "", .max = 64)                                    \
    X(T, STRS, cap_add, _, 24, "CapabilityAdd", "", .max = 64)                                \
    X(T, STRS, cap_drop, _, 25, "CapabilityDrop", "", .max = 64)                              \
    X(T, LIST, ulimits, ulimit, 26, "Ulimits", "", .max = 32)                                 \
    X(T, STR, isolation, _, 27, "Isolation", "Windows", .max = 16, .flags = F_UNBUILT)        \
    X(T, INT, oom_score_adj, _, 28, "OomScoreAdj", "", .min = -1000, .max = 1000)
REC_DECLARE(container_spec_model)

#define generic_resource_FIELDS(X, T) X(T, OPT, any, empty, 1, "DiscreteResourceSpec", "", .flags = F_UNBUILT)
REC_DECLARE(generic_resource)
#define resource_limits_FIELDS(X, T)                                                         \
    X(T, INT, nano_cpus, _, 1, "NanoCPUs", "1e9 = one processor", .min = 0, .max = INT64_MAX) \
    X(T, INT, memory_bytes, _, 2, "MemoryBytes", "bytes", .min = 0, .max = INT64_MAX)         \
    X(T, INT, pids, _, 3, "Pids", "processes", .min = -1, .max = 4194304)                     \
    X(T, LIST, generic, generic_resource, 4, "GenericResources", "", .max = 16, .flags = F_UNBUILT)
REC_DECLARE(resource_limits)
#define resources_FIELDS(X, T)                                                     \
    X(T, OPT, limits, resource_limits, 1, "Limits", "never more")                  \
    X(T, OPT, reservations, resource_limits, 2, "Reservations", "room a node must have") \
    X(T, INT, swap_bytes, _, 3, "SwapBytes", "", .flags = F_UNBUILT)               \
    X(T, INT, swappiness, _, 4, "MemorySwappiness", "", .flags = F_UNBUILT)
REC_DECLARE(resources)

#define restart_policy_FIELDS(X, T)                                                             \
    X(T, ENUM, condition, _, 1, "Condition", "any, none or on-failure", .names = restart_condition_names, .flags = F_ALWAYS) \
    X(T, INT, delay, _, 2, "Delay", "ns", .min = 0, .max = INT64_MAX, .flags = F_ALWAYS)        \
    X(T, UINT, max_attempts, _, 3, "MaxAttempts", "0: no limit", .max = 1000000, .flags = F_ALWAYS) \
    X(T, INT, window, _, 4, "Window", "ns in which attempts count; 0: for ever", .min = 0, .max = INT64_MAX)
REC_DECLARE(restart_policy)

#define spread_FIELDS(X, T) X(T, STR, descriptor, _, 1, "SpreadDescriptor", "node.labels.X", .min = 1, .max = 255)
REC_DECLARE(spread)
#define preference_FIELDS(X, T) X(T, OPT, spread, spread, 1, "Spread", "even over the label's values")
REC_DECLARE(preference)
#define platform_FIELDS(X, T)                                     \
    X(T, STR, arch, _, 1, "Architecture", "amd64, x86_64, arm64, ...", .max = 32) \
    X(T, STR, os, _, 2, "OS", "linux", .max = 32)
REC_DECLARE(platform)
#define placement_FIELDS(X, T)                                                        \
    X(T, STRS, constraints, _, 1, "Constraints", "node.labels.X==Y, ...", .max = 64, .check = check_constraint) \
    X(T, LIST, preferences, preference, 2, "Preferences", "", .max = 16)              \
    X(T, UINT, max_replicas, _, 3, "MaxReplicas", "a node; 0: no limit", .max = 100000) \
    X(T, LIST, platforms, platform, 4, "Platforms", "", .max = 64)
REC_DECLARE(placement)

#define network_ref_FIELDS(X, T)                                                \
    X(T, STR, target, _, 1, "Target", "id or name", .min = 1, .max = 255)       \
    X(T, STRS, aliases, _, 2, "Aliases", "", .max = 64)                         \
    X(T, LABELS, driver_opts, _, 3, "DriverOpts", "", .max = 16, .flags = F_UNBUILT)
REC_DECLARE(network_ref)

#define task_spec_FIELDS(X, T)                                                                   \
    X(T, OPT, container, container_spec_model, 1, "ContainerSpec", "", .flags = F_ALWAYS)        \
    X(T, OPT, resources, resources, 2, "Resources", "")                                          \
    X(T, OPT, restart, restart_policy, 3, "RestartPolicy", "absent: any, 5 s", .flags = F_LIVE)  \
    X(T, OPT, placement, placement, 4, "Placement", "", .flags = F_LIVE)                         \
    X(T, LIST, networks, network_ref, 5, "Networks", "", .max = 64)                              \
    X(T, OPT, log_driver, driver, 6, "LogDriver", "json-file or journald")                       \
    X(T, UINT, force_update, _, 7, "ForceUpdate", "counter: a change replaces the tasks", .flags = F_ALWAYS) \
    X(T, STR, runtime, _, 8, "Runtime", "container", .max = 32)
REC_DECLARE(task_spec)

#define update_config_FIELDS(X, T)                                                                        \
    X(T, UINT, parallelism, _, 1, "Parallelism", "tasks at once, 0: all", .max = 100000, .flags = F_ALWAYS) \
    X(T, INT, delay, _, 2, "Delay", "ns between batches", .min = 0, .max = INT64_MAX)                     \
    X(T, ENUM, failure_action, _, 3, "FailureAction", "pause, continue, rollback", .names = failure_action_names) \
    X(T, INT, monitor, _, 4, "Monitor", "ns a new task must live; 0: 5 s", .min = 0, .max = INT64_MAX)    \
    X(T, REAL, max_failure_ratio, _, 5, "MaxFailureRatio", "0..1", .flags = F_ALWAYS)                     \
    X(T, ENUM, order, _, 6, "Order", "stop-first or start-first", .names = update_order_names)
REC_DECLARE(update_config)

#define replicated_FIELDS(X, T) X(T, UINT, replicas, _, 1, "Replicas", "tasks wanted", .max = 100000, .flags = F_ALWAYS | F_LIVE)
REC_DECLARE(replicated)
#define service_mode_FIELDS(X, T)                                                        \
    X(T, OPT, replicated, replicated, 1, "Replicated", "", .flags = F_LIVE)              \
    X(T, OPT, global, empty, 2, "Global", "one a node")                                  \
    X(T, OPT, replicated_job, empty, 3, "ReplicatedJob", "", .flags = F_UNBUILT)         \
    X(T, OPT, global_job, empty, 4, "GlobalJob", "", .flags = F_UNBUILT)
REC_DECLARE(service_mode)

#define service_spec_FIELDS(X, T)                                                        \
    X(T, STR, name, _, 1, "Name", "unique", .min = 1, .max = 63, .check = check_name)    \
    X(T, LABELS, labels, _, 2, "Labels", "of the service", .max = 512, .flags = F_LIVE | F_ALWAYS) \
    X(T, REC, task, task_spec, 3, "TaskTemplate", "", .flags = F_ALWAYS)                 \
    X(T, REC, mode, service_mode, 4, "Mode", "", .flags = F_ALWAYS)                      \
    X(T, OPT, update, update_config, 5, "UpdateConfig", "", .flags = F_LIVE)             \
    X(T, OPT, rollback, update_config, 6, "RollbackConfig", "", .flags = F_LIVE)         \
    X(T, LIST, networks, network_ref, 7, "Networks", "old place; moved to the task", .max = 64) \
    X(T, OPT, endpoint, endpoint_spec, 8, "EndpointSpec", "", .flags = F_LIVE)
REC_DECLARE(service_spec)

#define update_status_FIELDS(X, T)                                                                  \
    X(T, ENUM, state, _, 1, "State", "", .names = update_state_names, .flags = F_ALWAYS)            \
    X(T, TIME, started_at, _, 2, "StartedAt", "")                                                   \
    X(T, TIME, completed_at, _, 3, "CompletedAt", "")                                               \
    X(T, STR, message, _, 4, "Message", "", .max = 1024)
REC_DECLARE(update_status)

#define service_status_FIELDS(X, T)                                          \
    X(T, UINT, running, _, 1, "RunningTasks", "", .flags = F_ALWAYS)         \
    X(T, UINT, desired, _, 2, "DesiredTasks", "", .flags = F_ALWAYS)         \
    X(T, UINT, completed, _, 3, "CompletedTasks", "", .flags = F_ALWAYS)
REC_DECLARE(service_status)

#define service_FIELDS(X, T)                                                                   \
    X(T, STR, id, _, 1, "ID", "25 base36 digits", .max = 25, .flags = F_FIXED)                 \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)                           \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)                           \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)                           \
    X(T, REC, spec, service_spec, 5, "Spec", "", .flags = F_ALWAYS)                            \
    X(T, OPT, previous, service_spec, 6, "PreviousSpec", "for rollback")                       \
    X(T, REC, endpoint, endpoint, 7, "Endpoint", "", .flags = F_ALWAYS)                        \
    X(T, OPT, update_status, update_status, 8, "UpdateStatus", "")                             \
    X(T, OPT, status, service_status, 9, "ServiceStatus", "computed", .flags = F_LOCAL)        \
    X(T, UINT, spec_version, _, 10, "SpecVersion", "counts changes that replace tasks, from 1") \
    X(T, STR, registry_auth, _, 11, "RegistryAuth", "X-Registry-Auth of the last writer", .max = 65536, .flags = F_SECRET) \
    X(T, UINT, allocated, _, 12, "Allocated", "SpecVersion whose addresses and ports are allocated")
REC_DECLARE(service)

/* True when going from a to b must replace the tasks (a diff without the F_LIVE rows). */
bool service_spec_needs_new_tasks(const struct service_spec *a, const struct service_spec *b);
/* Rules that span fields (mode given once, published ports unique, dnsrr without ingress ports...). Also fills
 * the defaults that Docker stores ({"Replicated":{}} -> 1 replica, networks moved to the task). */
int service_spec_normalize(struct service_spec *s, struct err *e) must_check;
/* RestartPolicy / UpdateConfig as they act, defaults filled in for absent ones. */
struct restart_policy service_restart_policy(const struct task_spec *t);
struct update_config service_update_config(const struct update_config *c);

#endif
