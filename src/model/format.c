#include <shoal/model/cluster.h>
#include <shoal/model/format.h>
#include <shoal/model/node.h>

#ifdef FORMAT_NEXT
unsigned format_most = 2;
#endif

int format_check(uint64_t format, struct err *e)
{
    if (format > FORMAT_MOST)
        return err_set(e, E_UNSUPPORTED, "this cluster writes format %llu, this shoal reads up to %u: upgrade this node; its "
                       "containers run on", (unsigned long long)format, FORMAT_MOST);
    if (format < FORMAT_LEAST)
        return err_set(e, E_UNSUPPORTED, "this cluster writes format %llu, this shoal reads %d and later ones: upgrade the "
                       "cluster step by step; the containers run on", (unsigned long long)format, FORMAT_LEAST);
    return 0;
}

uint64_t cluster_format(const struct cluster *c)
{
    return c && c->format ? c->format : 1;
}

bool node_has_left(const struct node *n)
{
    return n->status.state == NODE_DOWN &&
           (str_equal(n->status.message, NODE_LEFT_MESSAGE) || str_equal(n->status.message, NODE_BEHIND_MESSAGE));
}

bool node_knows_format(const struct node *n, uint64_t format)
{
    return node_has_left(n) || (n->formats.least <= format && MAX(n->formats.most, UINT64_C(1)) >= format);
}

bool node_keeps_format(const struct node *n, uint64_t format)
{
    return node_has_left(n) || MAX(n->formats.promised, UINT64_C(1)) >= format;
}
