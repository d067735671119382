/* Registries that did not answer a moment ago. Who can do without them, a task whose image the cluster has, does not wait for
 * them again and again: Pure; the oldest makes room. */
#include "image_internal.h"

static struct image_silent *find(struct image_silence *s, const char *host)
{
    for (unsigned i = 0; i < IMAGE_SILENT_MAX; i++)
        if (s->v[i].host && str_equal(s->v[i].host, host))
            return &s->v[i];
    return NULL;
}

static struct image_silent *place(struct image_silence *s)
{
    struct image_silent *x = &s->v[0];
    for (unsigned i = 0; i < IMAGE_SILENT_MAX && x->host; i++)
        if (!s->v[i].host || s->v[i].until_ms < x->until_ms)
            x = &s->v[i];
    return x;
}

void image_silence_note(struct image_silence *s, const char *host, bool silent, int64_t now_ms)
{
    struct image_silent *x = find(s, host);
    if (!x && !silent)
        return;
    x = x ? x : place(s);
    str_set(&x->host, silent ? host : NULL);
    x->until_ms = now_ms + IMAGE_SILENCE_MS;
}

bool image_silence_has(const struct image_silence *s, const char *host, int64_t now_ms)
{
    const struct image_silent *x = find((struct image_silence *)(uintptr_t)s, host);
    return x && now_ms < x->until_ms;
}

void image_silence_clear(struct image_silence *s)
{
    for (unsigned i = 0; i < IMAGE_SILENT_MAX; i++)
        free(TAKE(s->v[i].host));
}
