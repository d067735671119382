/* Published ports: Compose's short text with ranges and its long map, to rows of endpoint_spec. */
#include <stdio.h>
#include "stack_internal.h"

enum { MAX_PORTS = 256 };

struct range {
    uint64_t first, last;
};

static bool parse_range(const char *s, struct range *ret)
{
    const char *dash = strchr(s, '-');
    AUTO_FREE char *first = dash ? xstrndup(s, (size_t)(dash - s)) : xstrdup(s);
    return str_u64(first, 1, 65535, &ret->first) &&
           str_u64(dash ? dash + 1 : first, ret->first, 65535, &ret->last);
}

static int parse_protocol(const char *s, int *ret, struct err *e)
{
    for (int i = 0; port_protocol_names[i]; i++)
        if (strcasecmp(s, port_protocol_names[i]) == 0) {
            *ret = i;
            return 0;
        }
    return err_set(e, E_INVALID, "\"%.20s\" is not a protocol; write tcp, udp or sctp", s);
}

int stack_port_parse(const char *s, struct rec_list *ports, struct err *e)
{
    int protocol = PROTO_TCP;
    struct range target, published = { 0 };
    const char *slash = strrchr(s, '/');
    AUTO_FREE char *text = slash ? xstrndup(s, (size_t)(slash - s)) : xstrdup(s);
    int rc = slash ? parse_protocol(slash + 1, &protocol, e) : 0;
    if (rc < 0)
        return rc;
    char *colon = strrchr(text, ':'), *inside = colon ? colon + 1 : text;
    if (colon)
        *colon = 0;
    char *host = colon ? strrchr(text, ':') : NULL;
    if (host || (colon && strchr(text, '.')))
        return err_set(e, E_UNSUPPORTED, "\"%.60s\" names a host address; shoal publishes on every node, "
                       "so write \"%.30s%s%.30s\"", s, host ? host + 1 : "", host && host[1] ? ":" : "",
                       inside);
    if (!parse_range(inside, &target) || (colon && text[0] && !parse_range(text, &published)))
        return err_set(e, E_INVALID, "\"%.60s\" is not a port like 80, 8080:80, 8000-8010:8000-8010 or "
                       "53:53/udp, with numbers between 1 and 65535", s);
    if (published.first && published.last - published.first != target.last - target.first)
        return err_set(e, E_INVALID, "\"%.60s\" has ranges of different lengths", s);
    if (target.last - target.first >= MAX_PORTS)
        return err_set(e, E_INVALID, "\"%.60s\" is a range of more than %d ports", s, MAX_PORTS);
    for (uint64_t i = 0; i <= target.last - target.first; i++) {
        struct port *p = rec_list_add_(ports, sizeof *p);
        p->protocol = protocol;
        p->target = target.first + i;
        p->published = published.first ? published.first + i : 0;
    }
    return 0;
}

static int long_port(struct load *l, const struct val *v, struct rec_list *ports)
{
    struct port p = { 0 };
    AUTO_FREE char *published = NULL;
    int64_t target = 0;
    int rc = get_i64(l, v, "target", 1, 65535, &target);
    p.target = (uint64_t)target;
    if (rc == 0)
        rc = get_text(l, v, "published", &published);
    if (rc == 0)
        rc = get_enum(l, v, "protocol", port_protocol_names, &p.protocol);
    if (rc == 0)
        rc = get_enum(l, v, "mode", publish_mode_names, &p.mode);
    if (rc < 0)
        return rc;
    if (!p.target)
        return bad(l, v, E_INVALID, "target: is required");
    if (published && !str_u64(published, 0, 65535, &p.published)) {
        at_key(l, "published");
        return bad(l, member(v, "published"), E_INVALID,
                   "\"%.30s\" is not one port between 1 and 65535%s", published,
                   strchr(published, '-') ? "; write ranges as \"8000-8010:8000-8010\"" : "");
    }
    rc = get_str(l, v, "name", &p.name);
    if (rc == 0)
        *(struct port *)rec_list_add_(ports, sizeof p) = p;
    else
        free(p.name);
    return rc;
}

int convert_ports(struct load *l, const struct val *service, struct service_spec *s)
{
    const struct val *v = member(service, "ports");
    if (!v || !v->n)
        return 0;
    size_t mark = at_key(l, "ports");
    if (!s->endpoint)
        s->endpoint = xnew(struct endpoint_spec);
    struct rec_list *ports = (struct rec_list *)(void *)&s->endpoint->ports;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *item = v->list[i];
        size_t here = at_index(l, i);
        struct err e = { 0 };
        int rc;
        if (item->kind == V_MAP) {
            rc = long_port(l, item, ports);
        } else {
            AUTO_FREE char *text = scalar_text(item);
            rc = stack_port_parse(text, ports, &e);
            if (rc < 0)
                rc = bad(l, item, -rc, "%s", e.text);
        }
        if (rc < 0)
            return rc;
        if (ports->n > MAX_PORTS)
            return bad(l, item, E_INVALID, "a service publishes at most %d ports", MAX_PORTS);
        at_back(l, here);
    }
    at_back(l, mark);
    return 0;
}
