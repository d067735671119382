/* Who a container runs as: "user[:group]", names looked up in the image's own passwd and group files. They
 * are input from a stranger: lines that do not parse are skipped, nothing else happens. */
#include "runtime_internal.h"
#include <stdio.h>

enum { ID_MAX = 4294967294u };

/* Copies the k-th ':' field of a line (not NUL-terminated) into out. */
static bool field_of(const char *line, size_t len, unsigned k, char *out, size_t size)
{
    const char *p = line, *end = line + len;
    for (; k > 0; k--) {
        p = memchr(p, ':', (size_t)(end - p));
        if (!p)
            return false;
        p++;
    }
    const char *stop = memchr(p, ':', (size_t)(end - p));
    size_t n = (size_t)((stop ? stop : end) - p);
    if (n >= size)
        return false;
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}

/* Next line of text; false at the end. */
static bool next_line(const char **text, const char **ret_line, size_t *ret_len)
{
    if (!*text || !**text)
        return false;
    const char *nl = strchr(*text, '\n');
    *ret_line = *text;
    *ret_len = nl ? (size_t)(nl - *text) : strlen(*text);
    *text = nl ? nl + 1 : *text + *ret_len;
    return true;
}

static bool group_id(const char *text, const char *group, uint32_t *ret)
{
    uint64_t id;
    const char *line;
    size_t len;
    char name[256], number[32];
    while (next_line(&group, &line, &len))
        if (field_of(line, len, 0, name, sizeof name) && str_equal(name, text) &&
            field_of(line, len, 2, number, sizeof number) && str_u64(number, 0, ID_MAX, &id)) {
            *ret = (uint32_t)id;
            return true;
        }
    if (!str_u64(text, 0, ID_MAX, &id))
        return false;
    *ret = (uint32_t)id;
    return true;
}

static void add_group(struct user *u, uint32_t gid)
{
    for (unsigned i = 0; i < u->n_groups; i++)
        if (u->groups[i] == gid)
            return;
    if (u->n_groups < ARRAY_N(u->groups))
        u->groups[u->n_groups++] = gid;
}

/* Groups that list the user as a member. */
static void add_memberships(struct user *u, const char *name, const char *group)
{
    const char *line;
    size_t len;
    uint64_t id;
    char number[32], members[4096];
    while (next_line(&group, &line, &len)) {
        if (!field_of(line, len, 2, number, sizeof number) || !str_u64(number, 0, ID_MAX, &id) ||
            !field_of(line, len, 3, members, sizeof members))
            continue;
        for (char *m = members; m;) {
            char *comma = strchr(m, ',');
            if (comma)
                *comma = '\0';
            if (str_equal(m, name))
                add_group(u, (uint32_t)id);
            m = comma ? comma + 1 : NULL;
        }
    }
}

void user_home(struct user *u, const char *passwd)
{
    const char *line;
    size_t len;
    uint64_t id;
    char f[sizeof u->home];
    snprintf(u->home, sizeof u->home, "/");
    while (next_line(&passwd, &line, &len))
        if (field_of(line, len, 2, f, sizeof f) && str_u64(f, 0, ID_MAX, &id) && id == u->uid) {
            if (field_of(line, len, 5, f, sizeof f) && f[0] == '/')
                snprintf(u->home, sizeof u->home, "%s", f);
            return;
        }
}

int user_resolve(struct user *ret, const char *text, const struct strs *more_groups, const char *passwd,
                 const char *group, struct err *e)
{
    struct user u = { .home = "/" };
    char name[256] = "0", found[256] = "", f[256];
    const char *colon = text ? strchr(text, ':') : NULL, *line;
    size_t len;
    uint64_t id = 0, gid;
    bool known = false;
    if (text && *text)
        snprintf(name, sizeof name, "%.*s", (int)(colon ? colon - text : (long)strlen(text)), text);
    bool numeric = str_u64(name, 0, ID_MAX, &id);
    while (next_line(&passwd, &line, &len)) {
        uint64_t uid;
        if (!field_of(line, len, 2, f, sizeof f) || !str_u64(f, 0, ID_MAX, &uid) ||
            !field_of(line, len, 0, found, sizeof found) || !(str_equal(found, name) || (numeric && uid == id)))
            continue;
        known = true;
        id = uid;
        if (field_of(line, len, 3, f, sizeof f) && str_u64(f, 0, ID_MAX, &gid))
            u.gid = (uint32_t)gid;
        if (field_of(line, len, 5, f, sizeof f) && f[0] == '/')
            snprintf(u.home, sizeof u.home, "%s", f);
        break;
    }
    if (!known && !numeric)
        return err_set(e, E_INVALID, "user \"%s\" is not in the image's /etc/passwd; give a number or add it", name);
    u.uid = (uint32_t)id;
    if (colon && !group_id(colon + 1, group, &u.gid))
        return err_set(e, E_INVALID, "group \"%s\" is not in the image's /etc/group; give a number or add it", colon + 1);
    if (known && !colon)
        add_memberships(&u, found, group);
    for (uint32_t i = 0; i < more_groups->n; i++) {
        uint32_t g;
        if (!group_id(more_groups->v[i], group, &g))
            return err_set(e, E_INVALID, "group \"%s\" is not in the image's /etc/group; give a number or add it", more_groups->v[i]);
        add_group(&u, g);
    }
    *ret = u;
    return 0;
}
