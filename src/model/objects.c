/* The objects' tables become rows here, once. What the rows cannot say (rules that span fields,
 * defaults) is in service.c. */
#include <shoal/model/assignment.h>

const char *const port_protocol_names[] = { "tcp", "udp", "sctp", NULL };
const char *const publish_mode_names[] = { "ingress", "host", NULL };
const char *const endpoint_mode_names[] = { "vip", "dnsrr", NULL };
const char *const balance_names[] = { "random", "source", NULL };
const char *const restart_condition_names[] = { "any", "none", "on-failure", NULL };
const char *const failure_action_names[] = { "pause", "continue", "rollback", NULL };
const char *const update_order_names[] = { "stop-first", "start-first", NULL };
const char *const update_state_names[] = { "", "updating", "paused", "completed", "rollback_started",
                                           "rollback_paused", "rollback_completed", NULL };
const char *const mount_type_names[] = { "bind", "volume", "tmpfs", "npipe", "cluster", "image", NULL };
const char *const task_state_names[] = { "new", "pending", "assigned", "accepted", "preparing",
                                         "ready", "starting", "running", "complete", "shutdown",
                                         "failed", "rejected", "remove", "orphaned", NULL };
const char *const node_role_names[] = { "worker", "manager", NULL };
const char *const node_availability_names[] = { "active", "pause", "drain", NULL };
const char *const node_state_names[] = { "unknown", "down", "ready", "disconnected", NULL };
const char *const reachability_names[] = { "unknown", "unreachable", "reachable", "repairing", NULL };

const char *check_managers(const char *s)
{
    return !strcmp(s, "auto") || !strcmp(s, "manual") || managers_wanted(s) > 0
               ? NULL : "must be auto, manual, 1, 3, 5 or 7: an even number stands no more losses than the odd one below it";
}

int managers_wanted(const char *s)
{
    if (!s || !strcmp(s, "manual"))
        return 0;
    if (!strcmp(s, "auto"))
        return -1;
    return s[0] && !s[1] && strchr("1357", s[0]) ? s[0] - '0' : 0;
}

REC_DEFINE(empty)
REC_DEFINE(version)
REC_DEFINE(driver)
REC_DEFINE(port)
REC_DEFINE(endpoint_spec)
REC_DEFINE(vip)
REC_DEFINE(endpoint)
REC_DEFINE(bind_options)
REC_DEFINE(volume_options)
REC_DEFINE(tmpfs_options)
REC_DEFINE(mount)
REC_DEFINE(healthcheck)
REC_DEFINE(dns_config)
REC_DEFINE(file_target)
REC_DEFINE(secret_ref)
REC_DEFINE(config_ref)
REC_DEFINE(ulimit)
REC_DEFINE(seccomp_option)
REC_DEFINE(apparmor_option)
REC_DEFINE(privileges)
REC_DEFINE(container_spec_model)
REC_DEFINE(generic_resource)
REC_DEFINE(resource_limits)
REC_DEFINE(resources)
REC_DEFINE(restart_policy)
REC_DEFINE(spread)
REC_DEFINE(preference)
REC_DEFINE(platform)
REC_DEFINE(placement)
REC_DEFINE(network_ref)
REC_DEFINE(task_spec)
REC_DEFINE(update_config)
REC_DEFINE(replicated)
REC_DEFINE(service_mode)
REC_DEFINE(service_spec)
REC_DEFINE(update_status)
REC_DEFINE(service_status)
REC_DEFINE(service)
REC_DEFINE(container_status)
REC_DEFINE(port_status)
REC_DEFINE(task_status)
REC_DEFINE(attached_spec)
REC_DEFINE(attached_network)
REC_DEFINE(attachment)
REC_DEFINE(task)
REC_DEFINE(node_formats)
REC_DEFINE(node_spec)
REC_DEFINE(node_resources)
REC_DEFINE(plugin)
REC_DEFINE(engine)
REC_DEFINE(node_description)
REC_DEFINE(node_status)
REC_DEFINE(manager_status)
REC_DEFINE(node)
REC_DEFINE(orchestration)
REC_DEFINE(raft_spec)
REC_DEFINE(dispatcher_spec)
REC_DEFINE(ca_spec)
REC_DEFINE(task_defaults)
REC_DEFINE(encryption_spec)
REC_DEFINE(cluster_spec)
REC_DEFINE(join_tokens)
REC_DEFINE(gossip_key)
REC_DEFINE(ca_link)
REC_DEFINE(join_grant)
REC_DEFINE(cluster)
REC_DEFINE(ipam_config)
REC_DEFINE(ipam)
REC_DEFINE(config_from)
REC_DEFINE(network)
REC_DEFINE(secret_spec)
REC_DEFINE(config_spec)
REC_DEFINE(secret)
REC_DEFINE(config)
REC_DEFINE(replica)
REC_DEFINE(service_entry)
REC_DEFINE(assignment)
REC_DEFINE(node_table)
REC_DEFINE(session_hello)
REC_DEFINE(task_update)
REC_DEFINE(task_report)
