/* One binary, several programs: the node (daemon), its helpers that outlive it, and the command line. */
#include "cli.h"
#include <shoal/node.h>
#include <shoal/runtime.h>
#include <shoal/tunnel.h>

int main(int argc, char **argv)
{
    const char *program = argc > 1 ? argv[1] : "";
    cli_daemon_usage = daemon_usage;
    cli_oci_usage = oci_usage;
    cli_log_keys = node_log_keys;
    if (argc > 0 && str_ends(argv[0], "shoal-oci")) /* for callers that can give a program but no word after it */
        return oci_main(argc, argv);
    if (!strcmp(program, "oci"))
        return oci_main(argc - 1, argv + 1);
    if (!strcmp(program, "daemon"))
        return daemon_main(argc - 1, argv + 1);
    if (!strcmp(program, "tunnel"))
        return tunnel_main(argc - 1, argv + 1);
    return cli_main(argc, argv);
}
