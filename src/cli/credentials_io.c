/* Logins at registries: $SHOAL_CONFIG/config.json (else ~/.shoal/config.json), mode 0600, in the format of the docker
 * client's file ("auths", "auth" = base64 of user:password). A registry that is not there is looked for in docker's
 * own file ($DOCKER_CONFIG or ~/.docker), so a login made with docker holds here too; that file is only read, and of a
 * login that docker keeps elsewhere (credsStore, credHelpers) it is said that it does not hold. Other
 * keys of our file are kept as they are. */
#include "cli.h"
#include <errno.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/image.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 1 << 20 };
#define DOCKER_KEY "https://index.docker.io/v1/"

static char *file_of(const char *variable, const char *folder)
{
    const char *dir = getenv(variable), *home = getenv("HOME");
    if (dir && *dir)
        return path_join(dir, "config.json");
    return xasprintf("%s/%s/config.json", home && *home ? home : "/root", folder);
}

static const char *key_of(const char *host)
{
    return str_equal(host, "docker.io") ? DOCKER_KEY : host;
}

/* An absent file is an empty document. */
static int read_file(const char *path, struct val_doc **ret, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    if (!file_exists(path)) {
        *ret = val_doc_new();
        val_set_root(*ret, val_map(*ret));
        return 0;
    }
    int rc = file_read(path, FILE_MAX_BYTES, &text, &size, e);
    if (rc == 0)
        rc = json_parse(ret, text, size, path, e);
    if (text)
        crypto_wipe(text, size);
    if (rc == 0 && val_root(*ret)->kind != V_MAP) {
        val_doc_free(TAKE(*ret));
        rc = err_set(e, E_CORRUPT, "%s is not a JSON object; mend or remove it", path);
    }
    return rc;
}

/* docker keeps it in a program of its own, which is not run here: the pull then goes without a login, and says why. */
static void say_helper(struct cli *c, const char *path, const char *host)
{
    struct val_doc *d = NULL;
    if (read_file(path, &d, NULL) < 0)
        return;
    const struct val *root = val_root(d);
    const char *helper = val_get_str(val_get(root, "credHelpers"), key_of(host));
    if (!helper)
        helper = val_get_str(val_get(root, "credHelpers"), host);
    bool own = helper != NULL;
    if (!own && val_get(val_get(root, "auths"), key_of(host))) /* docker notes there, empty, what its store has */
        helper = val_get_str(root, "credsStore");
    if (helper && *helper)
        fprintf(c->err, "%s keeps the login at %s in docker-credential-%s, which shoal does not ask; use `shoal login%s%s`\n",
                path, host, helper, str_equal(host, "docker.io") ? "" : " ", str_equal(host, "docker.io") ? "" : host);
    val_doc_free(d);
}

static int look_up(const char *path, const char *host, char **ret, struct err *e)
{
    struct val_doc *d = NULL, *out;
    int rc = read_file(path, &d, e);
    if (rc < 0)
        return rc;
    const struct val *entry = val_get(val_get(val_root(d), "auths"), key_of(host));
    const char *auth = val_get_str(entry, "auth"), *token = val_get_str(entry, "identitytoken");
    if ((auth && *auth) || (token && *token)) {
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        out = val_doc_new();
        struct val *v = val_map(out);
        if (auth)
            val_set(out, v, "auth", val_str(out, auth));
        if (token)
            val_set(out, v, "identitytoken", val_str(out, token));
        val_set(out, v, "serveraddress", val_str(out, key_of(host)));
        json_write(&b, v, 0);
        *ret = base64_encode(b.s, b.len);
        crypto_wipe(b.s, b.len);
        val_doc_free(out);
    }
    val_doc_free(d);
    return 0;
}

int credentials_use(struct cli *c, const char *image, struct err *e)
{
    AUTO_FREE char *own = file_of("SHOAL_CONFIG", ".shoal");
    AUTO_FREE char *docker = file_of("DOCKER_CONFIG", ".docker");
    struct image_ref r;
    free(TAKE(c->registry_auth));
    if (image_ref_parse(&r, image, NULL) < 0)
        return 0; /* the daemon tells what is wrong with the reference */
    int rc = look_up(own, r.host, &c->registry_auth, e);
    if (rc == 0 && !c->registry_auth)
        rc = look_up(docker, r.host, &c->registry_auth, e);
    if (rc == 0 && !c->registry_auth)
        say_helper(c, docker, r.host);
    image_ref_clear(&r);
    return rc;
}

static int write_file(const char *path, const struct val_doc *d, struct err *e)
{
    AUTO_SB struct sb b;
    AUTO_FREE char *dir = xstrdup(path);
    *strrchr(dir, '/') = 0;
    sb_init(&b, FILE_MAX_BYTES);
    json_write(&b, val_root((struct val_doc *)d), 1);
    sb_char(&b, '\n');
    int rc = b.overflow ? err_set(e, E_TOO_BIG, "%s would be larger than %d bytes", path, FILE_MAX_BYTES)
                        : file_mkdirs(dir, 0700, e);
    if (rc == 0)
        rc = file_write_atomic(path, b.s, b.len, 0600, e);
    crypto_wipe(b.s, b.len);
    return rc;
}

int credentials_keep(const char *host, const char *user, const char *password, struct err *e)
{
    AUTO_FREE char *path = file_of("SHOAL_CONFIG", ".shoal");
    AUTO_FREE char *plain = xasprintf("%s:%s", user, password);
    AUTO_FREE char *auth = base64_encode(plain, strlen(plain));
    struct val_doc *d = NULL;
    int rc = read_file(path, &d, e);
    if (rc == 0) {
        struct val *root = val_root(d), *auths = val_get(root, "auths"), *entry = val_map(d);
        if (!auths || auths->kind != V_MAP)
            val_set(d, root, "auths", auths = val_map(d));
        val_set(d, entry, "auth", val_str(d, auth));
        val_set(d, auths, key_of(host), entry);
        rc = write_file(path, d, e);
    }
    val_doc_free(d);
    crypto_wipe(plain, strlen(plain));
    crypto_wipe(auth, strlen(auth));
    return rc;
}

int credentials_forget(const char *host, bool *ret_had, struct err *e)
{
    AUTO_FREE char *path = file_of("SHOAL_CONFIG", ".shoal");
    struct val_doc *d = NULL;
    int rc = read_file(path, &d, e);
    if (rc < 0)
        return rc;
    struct val *auths = val_get(val_root(d), "auths");
    *ret_had = val_get(auths, key_of(host)) != NULL;
    if (*ret_had) {
        val_unset(auths, key_of(host));
        rc = write_file(path, d, e);
    }
    val_doc_free(d);
    return rc;
}
