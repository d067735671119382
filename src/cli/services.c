/* The table of service ls and stack services, and the column of ports. */
#include "cli.h"

static const struct column columns[] = {
    { "ID", "ID", false },       { "NAME", "Name", false },   { "MODE", "Mode", false },
    { "REPLICAS", "Replicas", false }, { "IMAGE", "Image", false }, { "PORTS", "Ports", false },
};

static int compare_ports(const void *a, const void *b)
{
    const struct val *const *x = a, *const *y = b;
    int64_t d = int_at(*x, "PublishedPort", 0) - int_at(*y, "PublishedPort", 0);
    return d < 0 ? -1 : d > 0;
}

/* Runs of ports that go up together are one entry: "*:8000-8003->80-83/tcp". */
void ports_text(struct sb *b, const struct val *ports)
{
    uint32_t n = ports && ports->kind == V_LIST ? ports->n : 0;
    const struct val **sorted = xcalloc(n + 1, sizeof *sorted);
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = ports->list[i];
    qsort(sorted, n, sizeof *sorted, compare_ports);
    for (uint32_t i = 0, k; i < n; i = k) {
        int64_t published = int_at(sorted[i], "PublishedPort", 0), target = int_at(sorted[i], "TargetPort", 0);
        const char *protocol = str_at(sorted[i], "Protocol");
        bool ingress = !strcmp(str_at(sorted[i], "PublishMode"), "ingress");
        for (k = i + 1; k < n && published && int_at(sorted[k], "PublishedPort", 0) == published + (k - i) &&
                        int_at(sorted[k], "TargetPort", 0) == target + (k - i) &&
                        !strcmp(str_at(sorted[k], "Protocol"), protocol) &&
                        !strcmp(str_at(sorted[k], "PublishMode"), str_at(sorted[i], "PublishMode"));
             k++)
            continue;
        if (!ingress)
            continue; /* host ports belong to tasks and are shown by service ps */
        sb_str(b, b->len ? ", *:" : "*:");
        if (k - i > 1)
            sb_printf(b, "%lld-%lld->%lld-%lld/%s", (long long)published, (long long)published + (k - i - 1),
                      (long long)target, (long long)target + (k - i - 1), protocol);
        else
            sb_printf(b, "%lld->%lld/%s", (long long)published, (long long)target, protocol);
    }
    free(sorted);
}

static void add_service(struct cli *c, struct table *t, const struct val *s)
{
    char id[16];
    AUTO_SB struct sb ports;
    const char *image = str_at(s, "Spec.TaskTemplate.ContainerSpec.Image"), *digest = strchr(image, '@');
    int64_t most = int_at(s, "Spec.TaskTemplate.Placement.MaxReplicas", 0);
    bool global = at(s, "Spec.Mode.Global") != NULL;
    sb_init(&ports, 0);
    ports_text(&ports, at(s, "Endpoint.Ports"));
    table_add(t, short_id(str_at(s, "ID"), id));
    table_add(t, str_at(s, "Spec.Name"));
    table_add(t, global ? "global" : "replicated");
    if (most && !global)
        table_addf(t, "%lld/%lld (max %lld per node)", (long long)int_at(s, "ServiceStatus.RunningTasks", 0),
                   (long long)int_at(s, "ServiceStatus.DesiredTasks", 0), (long long)most);
    else
        table_addf(t, "%lld/%lld", (long long)int_at(s, "ServiceStatus.RunningTasks", 0),
                   (long long)int_at(s, "ServiceStatus.DesiredTasks", 0));
    table_addf(t, "%.*s", digest ? (int)(digest - image) : (int)strlen(image), image);
    table_add(t, ports.s);
}

static int by_name(const void *a, const void *b)
{
    const struct val *const *x = a, *const *y = b;
    return strcmp(str_at(*x, "Spec.Name"), str_at(*y, "Spec.Name"));
}

int services_show(struct cli *c, const struct val *services, struct err *e)
{
    struct table t;
    uint32_t n = services->kind == V_LIST ? services->n : 0;
    const struct val **sorted = xcalloc(n + 1, sizeof *sorted);
    table_init(&t, columns, ARRAY_N(columns));
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = services->list[i];
    qsort(sorted, n, sizeof *sorted, by_name);
    for (uint32_t i = 0; i < n; i++)
        add_service(c, &t, sorted[i]);
    int rc = table_show(c, &t, 0, e);
    table_done(&t);
    free(sorted);
    return rc;
}
