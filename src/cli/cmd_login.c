/* login, logout: the daemon asks the registry whether it takes the password; only then it is kept. */
#include "cli.h"
#include <shoal/base/crypto.h>

#define DEFAULT_HOST "docker.io"

static const struct cli_flag login_flags[] = {
    { "username", 'u', CLI_STR, "Name of the user", NULL },
    { "password", 'p', CLI_STR, "Password; other users of this machine can see it, rather pipe it in", NULL },
    { "password-stdin", 0, CLI_BOOL, "Password from the standard input", NULL },
    { 0 },
};

static int ask_daemon(struct cli *c, const char *host, const char *user, const char *password, struct err *e)
{
    AUTO_SB struct sb b;
    struct val_doc *d = NULL, *body = val_doc_new();
    struct val *v = val_map(body);
    val_set(body, v, "username", val_str(body, user));
    val_set(body, v, "password", val_str(body, password));
    val_set(body, v, "serveraddress", val_str(body, host));
    sb_init(&b, 0);
    json_write(&b, v, 0);
    val_doc_free(body);
    int rc = cli_call(c, "POST", "/auth", b.s, &d, e);
    crypto_wipe(b.s, b.len);
    val_doc_free(d);
    return rc;
}

static int cmd_login(struct cli *c, struct err *e)
{
    const char *host = cli_arg(c, 0) ? cli_arg(c, 0) : DEFAULT_HOST;
    const char *user = cli_str(c, "username");
    AUTO_FREE char *secret = xstrdup(cli_str(c, "password"));
    if (!user || !*user)
        return cli_usage(c, e, "name the user with -u");
    if (strchr(user, ':'))
        return cli_usage(c, e, "a user name has no ':'");
    if (secret && cli_on(c, "password-stdin"))
        return cli_usage(c, e, "--password and --password-stdin exclude each other");
    if (strstr(host, "://") || strchr(host, '/'))
        return cli_usage(c, e, "name the registry as HOST[:PORT], as it stands in image names");
    if (!secret && !cli_on(c, "password-stdin") && !term_is_tty(0))
        return cli_usage(c, e, "there is no terminal to ask on; pipe the password in and give --password-stdin");
    int rc = secret ? 0 : term_read_secret(cli_on(c, "password-stdin") ? NULL : "Password: ", &secret, e);
    if (rc < 0)
        return err_wrap(e, "password");
    rc = ask_daemon(c, host, user, secret, e);
    if (rc == 0)
        rc = credentials_keep(host, user, secret, e);
    if (rc == 0)
        fprintf(c->out, "Login Succeeded\n");
    if (secret)
        crypto_wipe(secret, strlen(secret));
    return rc;
}

static int cmd_logout(struct cli *c, struct err *e)
{
    const char *host = cli_arg(c, 0) ? cli_arg(c, 0) : DEFAULT_HOST;
    bool had = false;
    int rc = credentials_forget(host, &had, e);
    if (rc == 0)
        fprintf(c->out, had ? "Removed the login at %s\n" : "There was no login at %s\n", host);
    return rc;
}

const struct cli_command login_commands[] = {
    { "login", "[HOST[:PORT]]", "Keep a user name and password for a registry", login_flags,
      "echo $PASSWORD | shoal login -u me --password-stdin registry.example", cmd_login, 0, 1, 0 },
    { "logout", "[HOST[:PORT]]", "Forget the login at a registry", NULL, "shoal logout registry.example", cmd_logout, 0,
      1, 0 },
    { 0 },
};
