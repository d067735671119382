/* Placement constraints: KEY==VALUE and KEY!=VALUE, all must hold, values compared without case (as
 * SwarmKit does). node.ip takes an address or a network in CIDR form. */
#include <shoal/model/constraint.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

static bool ip_matches(const char *addr, const char *want)
{
    char net[64];
    snprintf(net, sizeof net, "%s", want);
    char *slash = strchr(net, '/');
    uint64_t bits = 32;
    if (slash) {
        *slash = 0;
        if (!str_u64(slash + 1, 0, 32, &bits))
            return false;
    }
    struct in_addr a, b;
    if (!addr || inet_pton(AF_INET, addr, &a) != 1 || inet_pton(AF_INET, net, &b) != 1)
        return false;
    uint32_t mask = bits ? htonl(UINT32_MAX << (32 - bits)) : 0;
    return (a.s_addr & mask) == (b.s_addr & mask);
}

const char *arch_normal(const char *arch)
{
    if (!arch)
        return "";
    if (!strcmp(arch, "amd64"))
        return "x86_64";
    if (!strcmp(arch, "arm64"))
        return "aarch64";
    return arch;
}

static const char *value_of(const struct node *n, const char *key)
{
    const char *v = NULL;
    if (!strcmp(key, "node.id"))
        v = n->id;
    else if (!strcmp(key, "node.hostname"))
        v = n->description.hostname;
    else if (!strcmp(key, "node.role"))
        v = node_role_names[n->spec.role];
    else if (!strcmp(key, "node.platform.os"))
        v = n->description.platform.os;
    else if (!strcmp(key, "node.platform.arch"))
        v = arch_normal(n->description.platform.arch);
    else if (str_starts(key, "node.labels."))
        v = labels_get(&n->spec.labels, key + 12);
    else if (str_starts(key, "engine.labels."))
        v = labels_get(&n->description.engine.labels, key + 14);
    return v ? v : "";
}

/* Splits "key == value"; false when malformed (refused long before by check_constraint). */
static bool split(const char *text, char *key, size_t key_size, const char **ret_value, bool *ret_equal)
{
    const char *eq = strstr(text, "=="), *ne = strstr(text, "!=");
    const char *op = eq && (!ne || eq < ne) ? eq : ne;
    if (!op)
        return false;
    const char *end = op;
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    if ((size_t)(end - text) >= key_size)
        return false;
    memcpy(key, text, (size_t)(end - text));
    key[end - text] = 0;
    op += 2;
    while (isspace((unsigned char)*op))
        op++;
    *ret_value = op;
    *ret_equal = op[-1] != '!' && eq && (!ne || eq < ne);
    return true;
}

bool constraints_match(const struct placement *p, const struct node *n, char *why, size_t why_size)
{
    for (uint32_t i = 0; p && i < p->constraints.n; i++) {
        char key[256];
        const char *want;
        bool equal, same;
        if (!split(p->constraints.v[i], key, sizeof key, &want, &equal))
            return false;
        if (!strcmp(key, "node.ip")) {
            same = ip_matches(n->status.addr, want);
        } else {
            if (!strcmp(key, "node.platform.arch"))
                want = arch_normal(want);
            same = !strcasecmp(value_of(n, key), want);
        }
        if (same != equal) {
            snprintf(why, why_size, "constraint %s", p->constraints.v[i]);
            return false;
        }
    }
    return true;
}
