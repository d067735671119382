/* The door to the dynamic loader. */
#include <dlfcn.h>
#include <shoal/base/library.h>
#include <shoal/base/mem.h>

static int find_calls(const struct library *l, void *handle, struct err *e)
{
    void **calls = l->calls;
    for (unsigned i = 0; l->names[i]; i++) {
        AUTO_FREE char *name = xasprintf("%s%s", l->prefix, l->names[i]);
        if (!(calls[i] = dlsym(handle, name)))
            return err_set(e, E_UNSUPPORTED, "%s on this machine has no %s; install a newer %s", l->file, name, l->package);
    }
    return 0;
}

int library_load(struct library *l, struct err *e)
{
    int r = 0;
    pthread_mutex_lock(&l->lock);
    if (!l->loaded) {
        void *handle = dlopen(l->file, RTLD_NOW | RTLD_LOCAL); /* now: nothing of it is looked for later, from another root */
        r = handle ? find_calls(l, handle, e)
                   : err_set(e, E_UNSUPPORTED, "%s cannot be loaded (%.300s); install it: apt-get install %s", l->file, dlerror(), l->package);
        l->loaded = r == 0;
    }
    pthread_mutex_unlock(&l->lock);
    return r;
}
