/* The daemon: joins the parts of a node. */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

/* `shoal daemon [flags]`: runs until SIGTERM or SIGINT; returns an exit status. Containers and the tunnel go on. */
int daemon_main(int argc, char **argv);
/* The keys that seal the log below root, newest first: how many (0: the node has none yet), or -E_. Makes nothing. */
struct err;
int node_log_keys(const char *root, unsigned char keys[2][32], struct err *e);
extern const char daemon_usage[]; /* what its --help prints: "      --flag VALUE  text" lines */

#endif
