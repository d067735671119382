/* The daemon: joins the parts of a node. */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

/* `shoal daemon [flags]`: runs until SIGTERM or SIGINT; returns an exit status. Containers and the tunnel go on. */
int daemon_main(int argc, char **argv);

#endif
