/* The daemon: joins the parts of a node. */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

/* `shoal daemon [flags]`: runs until SIGTERM or SIGINT; returns an exit status. Containers and the tunnel go on. */
int daemon_main(int argc, char **argv);
extern const char daemon_usage[]; /* what its --help prints: "      --flag VALUE  text" lines */

#endif
