/* Certificates for one registry, in the layout that dockerd and other programs have: DIR/HOST[:PORT]/ with *.crt
 * (authorities that may sign for it) and client.cert with client.key (who we are there). Absent folders are no error;
 * what is there and cannot be read is one. */
#include "image_internal.h"

#include <dirent.h>
#include <errno.h>
#include <shoal/base/file.h>

enum { CA_MAX_BYTES = 1 << 20 };

void image_certs_clear(struct image_certs *c)
{
    free(c->ca);
    free(c->cert);
    free(c->key);
    *c = (struct image_certs){ 0 };
}

static int add_ca(struct sb *b, const char *path, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int r = file_read(path, CA_MAX_BYTES, &text, &size, e);
    if (r < 0)
        return r;
    sb_add(b, text, strlen(text));
    sb_char(b, '\n');
    return b->overflow ? err_set(e, E_TOO_BIG, "%s: more than %d bytes of certificates", path, CA_MAX_BYTES) : 0;
}

int image_certs_read(struct image_certs *ret, const char *dir, const char *host, struct err *e)
{
    AUTO_FREE char *folder = dir ? path_join(dir, host) : NULL;
    DIR *d = folder ? opendir(folder) : NULL;
    struct dirent *de;
    struct sb ca;
    int r = 0;
    *ret = (struct image_certs){ 0 };
    if (folder && !d && errno != ENOENT && errno != ENOTDIR)
        return err_errno(e, errno, "open %s", folder);
    sb_init(&ca, CA_MAX_BYTES);
    while (r == 0 && d && (de = readdir(d))) {
        AUTO_FREE char *path = path_join(folder, de->d_name);
        if (str_ends(de->d_name, ".crt"))
            r = add_ca(&ca, path, e);
        else if (str_equal(de->d_name, "client.cert"))
            str_set(&ret->cert, path);
        else if (str_equal(de->d_name, "client.key"))
            str_set(&ret->key, path);
    }
    if (d)
        closedir(d);
    if (r == 0 && !ret->cert != !ret->key)
        r = err_set(e, E_INVALID, "%s: client.cert and client.key go together, one is missing", folder);
    if (r == 0 && ca.len)
        ret->ca = sb_take(&ca);
    sb_done(&ca);
    if (r < 0)
        image_certs_clear(ret);
    return r;
}
