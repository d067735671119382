/* Task: one run of a container for a slot of a service. States only move forward; a replacement is a
 * new task in the same slot. Owner of each state: manager up to ASSIGNED, agent after. */
#ifndef SHOAL_MODEL_TASK_H
#define SHOAL_MODEL_TASK_H

#include <shoal/model/service.h>

enum task_state {
    TASK_NEW, TASK_PENDING, TASK_ASSIGNED, TASK_ACCEPTED, TASK_PREPARING, TASK_READY, TASK_STARTING,
    TASK_RUNNING, TASK_COMPLETE, TASK_SHUTDOWN, TASK_FAILED, TASK_REJECTED, TASK_REMOVE, TASK_ORPHANED
};
extern const char *const task_state_names[]; /* "new", "pending", ... */
static inline bool task_state_is_final(int s) { return s >= TASK_COMPLETE; }

#define container_status_FIELDS(X, T)                                       \
    X(T, STR, id, _, 1, "ContainerID", "", .max = 64)                       \
    X(T, UINT, pid, _, 2, "PID", "")                                        \
    X(T, INT, exit_code, _, 3, "ExitCode", "", .flags = F_ALWAYS)
REC_DECLARE(container_status)

#define port_status_FIELDS(X, T) X(T, LIST, ports, port, 1, "Ports", "host-mode ports", .max = 256)
REC_DECLARE(port_status)

#define task_status_FIELDS(X, T)                                                       \
    X(T, TIME, timestamp, _, 1, "Timestamp", "", .flags = F_ALWAYS)                    \
    X(T, ENUM, state, _, 2, "State", "", .names = task_state_names, .flags = F_ALWAYS) \
    X(T, STR, message, _, 3, "Message", "", .max = 2048)                               \
    X(T, STR, err, _, 4, "Err", "why it failed or waits", .max = 2048)                 \
    X(T, OPT, container, container_status, 5, "ContainerStatus", "")                   \
    X(T, OPT, ports, port_status, 6, "PortStatus", "")                                 \
    X(T, BOOL, healthy, _, 7, "Healthy", "may receive traffic")
REC_DECLARE(task_status)

#define attached_spec_FIELDS(X, T) X(T, STR, name, _, 1, "Name", "", .max = 255)
REC_DECLARE(attached_spec)
#define attached_network_FIELDS(X, T)                        \
    X(T, STR, id, _, 1, "ID", "", .max = 64)                 \
    X(T, REC, spec, attached_spec, 2, "Spec", "", .flags = F_ALWAYS)
REC_DECLARE(attached_network)
#define attachment_FIELDS(X, T)                                                                     \
    X(T, REC, network, attached_network, 1, "Network", "", .flags = F_ALWAYS)                       \
    X(T, STRS, addresses, _, 2, "Addresses", "address/prefix length", .max = 4, .flags = F_ALWAYS)  \
    X(T, STRS, aliases, _, 3, "Aliases", "", .max = 64)
REC_DECLARE(attachment)

#define task_FIELDS(X, T)                                                                           \
    X(T, STR, id, _, 1, "ID", "", .max = 25, .flags = F_FIXED)                                      \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)                                \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)                                \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)                                \
    X(T, LABELS, labels, _, 5, "Labels", "", .max = 512, .flags = F_ALWAYS)                         \
    X(T, REC, spec, task_spec, 6, "Spec", "", .flags = F_ALWAYS)                                    \
    X(T, STR, service_id, _, 7, "ServiceID", "", .max = 25, .flags = F_FIXED)                       \
    X(T, UINT, slot, _, 8, "Slot", "from 1; 0: global", .flags = F_FIXED)                           \
    X(T, STR, node_id, _, 9, "NodeID", "", .max = 25)                                               \
    X(T, REC, status, task_status, 10, "Status", "", .flags = F_ALWAYS)                             \
    X(T, ENUM, desired, _, 11, "DesiredState", "", .names = task_state_names, .flags = F_ALWAYS)    \
    X(T, LIST, attachments, attachment, 12, "NetworksAttachments", "", .max = 64)                   \
    X(T, STR, service_name, _, 13, "ServiceName", "", .max = 63)                                    \
    X(T, UINT, spec_version, _, 14, "SpecVersion", "service.SpecVersion it was made from")          \
    X(T, LIST, ports, port, 15, "Ports", "of the service's endpoint", .max = 256)                   \
    X(T, TIME, not_before, _, 16, "NotBefore", "restart delay: desired running not before this")    \
    X(T, STR, registry_auth, _, 17, "RegistryAuth", "", .max = 65536, .flags = F_SECRET)
REC_DECLARE(task)

#endif
